"""Measures the input path against the official tf.data code and Pillow.

Every path runs on one thread; figures are milliseconds of CPU time per image
and ratios of CPU time, taken within one round and then the median over rounds,
because absolute rates drift. The last line is JSON:

  autoaugment_over_official  official time / ours, AutoAugment v0 alone
  input_over_official        official time / ours, JPEG to augmented image
  input_over_pil             Pillow's time / ours, JPEG to augmented image
  ceiling_over_official      official time / decoding our crop and nothing else
  two_views                  time of the plain and the augmented view from one
                             decode / time of the plain view alone
  decoding_share             time of decoding our crop / ours, JPEG to augmented
                             image
  free_augmentation_over_official
                             official time / ours without augmentation

Larger is better for the first three. No input path that decodes by TensorFlow's
JPEG kernel can pass the ceiling, and none that resizes by its kernel as well
passes the last figure. The file tools/measuring/input_peers.py describes the
peers.

--pictures names the images: `photographs`, crops of the two photographs that
come with scikit-learn (an optional install) as JPEGs of 500 x 400 pixels;
`noise` of that size with the spectrum of photographs; or a folder of TFRecords
or class folders, whose first JPEGs are taken as they are.

  .venv/bin/python tools/benchmark_input.py --quick --pictures=noise
"""

from collections.abc import Sequence
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop.app import program
from tools.measuring import paths
from tools.measuring import photographs

import tensorflow as tf  # isort: skip

_FLAGS = program.flag_values(__name__)
_QUICK = flags.DEFINE_bool(
  'quick', False, 'Fewer rounds: takes about a minute.', flag_values=_FLAGS
)
_PICTURES = flags.DEFINE_string(
  'pictures',
  '',
  '`photographs`, `noise`, or a folder of images. Default: photographs, or'
  ' noise where scikit-learn is not installed.',
  flag_values=_FLAGS,
)
_IMAGE_SIZE = flags.DEFINE_integer(
  'image_size', 224, 'Size of the results, in pixels.', 32, flag_values=_FLAGS
)
_ROUNDS = flags.DEFINE_integer(
  'rounds', 15, 'Rounds over all paths.', 1, flag_values=_FLAGS
)


def main(_: Sequence[str]) -> None:
  """Measures the input path, and prints the figures."""
  tf.config.threading.set_inter_op_parallelism_threads(1)
  tf.config.threading.set_intra_op_parallelism_threads(1)
  name = _PICTURES.value or photographs.default_pictures()
  rounds, images = (5, 100) if _QUICK.value else (_ROUNDS.value or 1, 400)
  paths.report(
    photographs.find_pictures(name), rounds, images, _IMAGE_SIZE.value or 224
  )


if __name__ == '__main__':
  program.run('benchmark_input', main, _FLAGS)
