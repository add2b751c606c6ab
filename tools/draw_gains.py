r"""Draws AdvProp's gains over vanilla training in all published results.

  .venv/bin/python tools/draw_gains.py --output=docs/results/gains.png

Reads the files of results in docs/results, draws means and 95% intervals of the
paired differences to the PNG file, and prints them as the Markdown table that
docs/results/README.md shows. Needs requirements-results.txt.
"""

from collections.abc import Sequence
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop.app import program
from tools.suites import gains

_FLAGS = program.flag_values(__name__)
_RESULTS_DIR = flags.DEFINE_string(
  'results_dir',
  os.path.join(os.path.dirname(__file__), os.pardir, 'docs', 'results'),
  'Folder of the files of results.',
  flag_values=_FLAGS,
)
_OUTPUT = flags.DEFINE_string(
  'output', None, 'The PNG file.', required=True, flag_values=_FLAGS
)


def main(_: Sequence[str]) -> None:
  """Draws the plot and prints the table."""
  rows = gains.judge(str(_RESULTS_DIR.value))
  gains.plot(rows, str(_OUTPUT.value))
  print(gains.table(rows))


if __name__ == '__main__':
  program.run('draw_gains', main, _FLAGS)
