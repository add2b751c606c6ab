"""Measures the size and speed of exported files against plain Keras.

  .venv/bin/python tools/benchmark_export.py --model_name=efficientnet-b0

CPU time on one thread, which is the latency of an otherwise idle core, as a
ratio to the network of keras.applications in a `tf.function`, in the same
rounds. A TFLite file takes one image at a time; a batch of 32 is 32 calls. The
last line is JSON. Weights are random: they change neither size nor speed.
"""

from collections.abc import Sequence
import json
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import program
from tools.measuring import exports

import tensorflow as tf  # isort: skip

_FLAGS = program.flag_values(__name__)
_MODEL_NAME = flags.DEFINE_enum(
  'model_name',
  'efficientnet-b0',
  # keras.applications has no larger ones.
  [n for n in config_lib.MODEL_NAMES if n[-3:] not in ('-b8', '200')],
  'The network.',
  flag_values=_FLAGS,
)
_IMAGE_SIZE = flags.DEFINE_integer(
  'image_size',
  None,
  "Size of the images, in pixels. Default: the network's.",
  flag_values=_FLAGS,
)
_ROUNDS = flags.DEFINE_integer(
  'rounds',
  9,
  'Rounds, each with one call of each variant.',
  1,
  flag_values=_FLAGS,
)


def main(_: Sequence[str]) -> None:
  """Prints the tables, and the figures as JSON."""
  # With one thread, CPU time is latency.
  tf.config.threading.set_intra_op_parallelism_threads(1)
  tf.config.threading.set_inter_op_parallelism_threads(1)
  figures = exports.measure(
    str(_MODEL_NAME.value), _IMAGE_SIZE.value, _ROUNDS.value or 1
  )
  print(json.dumps({key: round(value, 3) for key, value in figures.items()}))


if __name__ == '__main__':
  program.run('benchmark_export', main, _FLAGS)
