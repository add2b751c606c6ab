"""Measures how long a training set of ImageNet's size takes to start.

It writes as many records as ImageNet has, each a tiny JPEG, to a temporary
folder (1.1 GB), and measures in seconds:

  count_seconds     to find the shards and count their records by the headers
  manifest_seconds  to find them by their manifest, as for shards above 16 GiB
  start_seconds     from there to the first batch of a new run
  resume_seconds    to the first batch of a run that resumes in the middle of
                    the tenth epoch

The same names with `_cpu_seconds` are CPU time over all threads, which does not
depend on what else runs. The last line is JSON.

  .venv/bin/python tools/benchmark_scale.py
"""

from collections.abc import Sequence
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import program
from tools.measuring import scale

_FLAGS = program.flag_values(__name__)
_RECORDS = flags.DEFINE_integer(
  'records', 1_281_167, 'Records in all.', 1, flag_values=_FLAGS
)
_SHARDS = flags.DEFINE_integer(
  'shards', 1024, 'Files that hold them.', 1, flag_values=_FLAGS
)
_BATCH_SIZE = flags.DEFINE_integer(
  'batch_size', 256, 'Images in a step.', 1, flag_values=_FLAGS
)
_WINDOW = flags.DEFINE_integer(
  'shuffle_window', 16_384, 'data.shuffle_window.', 1, flag_values=_FLAGS
)
_FOLDER = flags.DEFINE_string(
  'folder',
  '',
  'Where the temporary folder is made. Default: where the system keeps'
  ' temporary files.',
  flag_values=_FLAGS,
)


def _check(values: flags.FlagValues) -> None:
  for name in 'shards', 'batch_size':
    if values[name].value > values.records:
      allowed = f'at most --records={values.records}'
      raise config_lib.ConfigError(f'--{name}', values[name].value, allowed)


def main(_: Sequence[str]) -> None:
  """Measures, and prints the figures."""
  figures = scale.measure(
    _RECORDS.value or 1,
    _SHARDS.value or 1,
    _BATCH_SIZE.value or 1,
    _WINDOW.value or 1,
    _FOLDER.value or '',
  )
  scale.report(figures)


if __name__ == '__main__':
  program.run('benchmark_scale', main, _FLAGS, _check)
