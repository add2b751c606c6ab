"""Compares every image operation with Pillow's, and measures the time.

The first table holds, for each operation of AutoAugment and RandAugment, the
largest difference from Pillow in levels of 0-255 over all photographs, levels
0 to 10 and both directions, and milliseconds of CPU time per image at level 8:
ours, in the structure of the official tf.data code (where that policy has the
operation) and Pillow's. The cost of passing the image on is subtracted.
The second table holds the stages of the path from a JPEG to an augmented view.

The photographs come with scikit-learn and scikit-image (optional installs);
without them, noise is drawn. Everything runs on one thread, and figures are
medians over rounds. The last line is JSON; the exit code is 2 if an operation
differs by more than a level.

  .venv/bin/python tools/benchmark_operations.py
"""

from collections.abc import Sequence
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop.app import program
from efficientnet_advprop.base import errors
from tools.measuring import operations

import tensorflow as tf  # isort: skip

_FLAGS = program.flag_values(__name__)
_IMAGE_SIZE = flags.DEFINE_integer(
  'image_size', 224, 'Size of the images, in pixels.', 32, flag_values=_FLAGS
)
_ROUNDS = flags.DEFINE_integer(
  'rounds', 7, 'Rounds over all operations.', 1, flag_values=_FLAGS
)
_IMAGES = flags.DEFINE_integer(
  'images', 100, 'Images in a round.', 50, flag_values=_FLAGS
)


def main(_: Sequence[str]) -> None:
  """Compares and measures all operations, and prints the figures."""
  tf.config.threading.set_inter_op_parallelism_threads(1)
  tf.config.threading.set_intra_op_parallelism_threads(1)
  if not operations.report(
    _ROUNDS.value or 1, _IMAGES.value or 50, _IMAGE_SIZE.value or 32
  ):
    raise errors.DataError('an operation differs by more than a level')


if __name__ == '__main__':
  program.run('benchmark_operations', main, _FLAGS)
