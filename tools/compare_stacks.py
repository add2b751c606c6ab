"""Carries a run and its export from one TensorFlow to another, both ways.

  .venv/bin/python tools/compare_stacks.py --other=.venv-newer/bin/python

Each of the two Pythons, the one that runs this and the other, trains a small
network on the embedded data set, exports it and saves its logits. Then each
reads what the other wrote: the weights through either norms, the SavedModel,
and the run itself, which it trains to the end.

Ends in one line of JSON: the TensorFlow versions and, for each direction, the
largest difference of a logit over the largest logit, and the step to which the
other's run was trained. The exit code is 1 if a difference is above 1e-5.
"""

from collections.abc import Sequence
import json
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop.app import program
from tools.comparing import stacks

import tensorflow as tf  # isort: skip

_FLAGS = program.flag_values(__name__)
_OTHER = flags.DEFINE_string(
  'other', None, 'The other Python, with its packages.', flag_values=_FLAGS
)
_WRITE_DIR = flags.DEFINE_string(
  'write_dir', None, 'Internal: write a run here.', flag_values=_FLAGS
)
_READ_DIR = flags.DEFINE_string(
  'read_dir', None, 'Internal: compare the run here.', flag_values=_FLAGS
)


def _check(values: flags.FlagValues) -> None:
  if not (values.other or values.write_dir or values.read_dir):
    raise flags.Error(
      '--other: a Python with the packages of the other stack is needed'
    )


def main(_: Sequence[str]) -> int:
  """Compares two stacks, or runs the part of one; returns the exit code."""
  version = {'tensorflow': tf.__version__}
  if _WRITE_DIR.value:
    stacks.write(_WRITE_DIR.value)
    print(json.dumps(version))
    return 0
  if _READ_DIR.value:
    print(json.dumps({**version, **stacks.read(_READ_DIR.value)}))
    return 0
  result = stacks.compare(os.path.abspath(__file__), str(_OTHER.value))
  print(json.dumps(result))
  return 0 if stacks.agrees(result) else 1


if __name__ == '__main__':
  program.run('compare_stacks', main, _FLAGS, _check)
