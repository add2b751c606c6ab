r"""Runs a suite of methods, strengths, widths and seeds; tests the claims.

  .venv/bin/python tools/reproduce.py --suite=hparams/suites/cifar10.yaml \
      --data_dir=<cifar10> --jobs=2

Each run is a process of one thread, and `--jobs` of them run at a time. A
finished run leaves one line in `<output_dir>/<suite>.jsonl`, and is not made
again: the same command resumes a suite that was stopped or killed. At the end,
and with --report alone, the lines become `<output_dir>/<suite>.md` and its
plots. `pip install -r requirements-results.txt` installs what this needs.

Results go to `runs/<suite>`. A second step compares them with the lines that
this project has published: --compare prints both, cell by cell.

  .venv/bin/python tools/reproduce.py --suite=hparams/suites/cifar10.yaml \
      --report --compare=docs/results/cifar10.jsonl
"""

from collections.abc import Sequence
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags
from absl import logging

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop.app import program
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import paths
from efficientnet_advprop.training import stopping
from tools.suites import whole

_FLAGS = program.flag_values(__name__)
_SUITE = flags.DEFINE_string(
  'suite', paths.recipe('suites/cifar10'), 'The suite.', flag_values=_FLAGS
)
_DATA_DIR = flags.DEFINE_string(
  'data_dir',
  '',
  'TFRecords, class folders, or tfds:<name>. Default: the embedded data set.',
  flag_values=_FLAGS,
)
_INIT_CHECKPOINT = flags.DEFINE_string(
  'init_checkpoint',
  None,
  "Weights in place of the suite's train.init_checkpoint.",
  flag_values=_FLAGS,
)
_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir',
  None,
  'Folder for results and report. Default: that of --work_dir.',
  flag_values=_FLAGS,
)
_WORK_DIR = flags.DEFINE_string(
  'work_dir',
  None,
  'Folder for images and unfinished runs. Default: runs/<suite>.',
  flag_values=_FLAGS,
)
_JOBS = flags.DEFINE_integer(
  'jobs', os.cpu_count(), 'Runs at a time.', 1, flag_values=_FLAGS
)
_REPORT = flags.DEFINE_bool(
  'report', False, 'Only write the report.', flag_values=_FLAGS
)
_COMPARE = flags.DEFINE_string(
  'compare', None, 'Lines of another run of the suite.', flag_values=_FLAGS
)
_RUN = flags.DEFINE_string(
  'run', None, 'Make this run, <cell>:<seed>, here.', flag_values=_FLAGS
)


def main(_: Sequence[str]) -> int:
  """Makes the runs that are missing, then reports; returns the exit code."""
  place = whole.Place(
    str(_SUITE.value),
    _WORK_DIR.value,
    _OUTPUT_DIR.value,
    _INIT_CHECKPOINT.value,
  )
  try:
    if _RUN.value:
      logging.set_verbosity(logging.WARNING)
      place.make_run(_RUN.value)
      return 0
    if not _REPORT.value:
      command = [sys.executable, os.path.abspath(__file__)]
      place.make_all(command, _DATA_DIR.value or '', _JOBS.value or 1)
    print(place.report(_DATA_DIR.value or ''))
    if _COMPARE.value:
      print(place.comparison(_COMPARE.value))
  except stopping.StoppedError as stopped:
    print(f'reproduce: {stopped}', file=sys.stderr)
    return errors.EXIT_TERMINATED
  return 0


if __name__ == '__main__':
  program.run('reproduce', main, _FLAGS)
