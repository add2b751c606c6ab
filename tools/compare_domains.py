r"""Shows where the norms of a run's domains differ, layer by layer.

  .venv/bin/python tools/compare_domains.py \
      --model_dir=runs/efficientnet-b0_advprop

For each auxiliary domain it compares every norm with the main one and takes the
mean over channels: the symmetric Kullback-Leibler divergence of the moving
statistics, their shift and ratio, and the differences of gamma and beta.
tools/comparing/domains.py has the formulas. It prints a table and writes
domains.json and domains.png to --output_dir.
"""

from collections.abc import Sequence
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop.app import program
from tools.comparing import domains

_FLAGS = program.flag_values(__name__)
_MODEL_DIR = flags.DEFINE_string(
  'model_dir', None, 'Folder of the run.', required=True, flag_values=_FLAGS
)
_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir',
  None,
  'Folder for the files. Default: that of the run.',
  flag_values=_FLAGS,
)
_WEIGHTS = flags.DEFINE_enum(
  'weights',
  'ema',
  ['ema', 'raw'],
  'Averaged weights, or those of the last step.',
  flag_values=_FLAGS,
)


def main(_: Sequence[str]) -> None:
  """Prints the tables, and writes the files."""
  model_dir = str(_MODEL_DIR.value)
  output_dir = _OUTPUT_DIR.value or model_dir
  print(domains.report(model_dir, output_dir, str(_WEIGHTS.value)))
  print(f'\n{os.path.join(output_dir, "domains.json")} and domains.png')


if __name__ == '__main__':
  program.run('compare_domains', main, _FLAGS)
