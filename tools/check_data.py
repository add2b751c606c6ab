"""Reads every image of a data set and lists all that cannot be used.

  .venv/bin/python tools/check_data.py --data_dir=<images>

The data set is TFRecords, class folders or `tfds:<name>`, as for main.py. Each
bad file or record is a line with its reason. It ends with exit code 2 if there
are any; training would stop at the first one that it meets.
"""

from collections.abc import Sequence
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags
from absl import logging

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import program
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import progress
from efficientnet_advprop.data import checking
from efficientnet_advprop.data import sources
from efficientnet_advprop.data import tfrecords

_FLAGS = program.flag_values(__name__)
_DATA_DIR = flags.DEFINE_string(
  'data_dir',
  '',
  'TFRecords, class folders, or tfds:<name>. Empty: the embedded data set.',
  flag_values=_FLAGS,
)
_SPLITS = flags.DEFINE_list(
  'splits',
  ['train', 'validation'],
  'The parts of the data set to read.',
  flag_values=_FLAGS,
)
_NUM_CLASSES = flags.DEFINE_integer(
  'num_classes',
  None,
  'How many classes there have to be. Default: as many as there are.',
  2,
  flag_values=_FLAGS,
)


def check_split(config: config_lib.DataConfig, split: str) -> int:
  """Prints a line for each problem of a split; returns their number.

  Raises:
    DataError: the split is not there, or its folders do not fit.
  """
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)  # Damage of files is printed below.
  try:
    source = sources.find_set(config, split)
  finally:
    logging.set_verbosity(verbosity)
  problems = 0
  if source.labels is None and '://' not in source.files[0]:
    for path in source.files:
      _, problem = tfrecords.count_records(path)
      if problem:
        print(problem, flush=True)
        problems += 1
  report = progress.Progress(f'checking {split}')
  done = 0
  for done, found in checking.check(source):
    for problem in found:
      print(problem, flush=True)
    problems += len(found)
    report(done, source.size)
  print(f'{split}: {done} images read, {problems} problems', flush=True)
  return problems


def main(_: Sequence[str]) -> int:
  """Checks the splits; returns the exit code."""
  values = {
    'dir': _DATA_DIR.value,
    'num_classes': _NUM_CLASSES.value,
    # Files that were cut short are read as far as they go.
    'max_bad_records': 2**31 - 1,
  }
  data = config_lib.from_dict({'data': values}).data
  problems = sum(check_split(data, split) for split in _SPLITS.value)
  return errors.EXIT_USER_ERROR if problems else 0


if __name__ == '__main__':
  program.run('check_data', main, _FLAGS)
