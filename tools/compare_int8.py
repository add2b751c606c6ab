r"""Compares ways to quantize a run's network, on its own images.

  .venv/bin/python tools/compare_int8.py \
      --model_dir=runs/efficientnet-b0_advprop

Every way takes the ranges of activations from the same training images. All
files are compared with the trained network on the same evaluation images:

  int8                  as `export.tflite=int8`: a scale for each channel
  one scale             one scale for each kernel
  float classifier      classifier and softmax stay in float
  float gates           sigmoids, products and means stay in float: all of
                        swish and squeeze-excitation
  float worst layers    the `--float_layers` operations with the largest error
                        stay in float. The error is the root of the mean square
                        over the step of the scale, by TensorFlow's quantization
                        debugger
  int16 activations     int8 weights, 16-bit activations

It prints a table, whose last line is JSON: by way, top-1 in percent, the share
of images of equal top-1 in percent, the largest difference of a probability,
and KiB.
"""

from collections.abc import Sequence
import dataclasses
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import program
from efficientnet_advprop.base import paths
from tools.comparing import quantization

_FLAGS = program.flag_values(__name__)
_MODEL_DIR = flags.DEFINE_string(
  'model_dir', None, 'Folder of the run.', required=True, flag_values=_FLAGS
)
_DATA_DIR = flags.DEFINE_string(
  'data_dir', None, "The images. Default: the run's.", flag_values=_FLAGS
)
_NUM_IMAGES = flags.DEFINE_integer(
  'num_images', 500, 'Images to test on.', 1, flag_values=_FLAGS
)
_FLOAT_LAYERS = flags.DEFINE_integer(
  'float_layers',
  10,
  'Operations that `float worst layers` leaves in float.',
  1,
  flag_values=_FLAGS,
)


def main(_: Sequence[str]) -> None:
  """Compares the ways, and prints the table."""
  model_dir = str(_MODEL_DIR.value)
  config = config_lib.load_config(os.path.join(model_dir, paths.CONFIG))
  if _DATA_DIR.value is not None:
    data = dataclasses.replace(config.data, dir=_DATA_DIR.value)
    config = dataclasses.replace(config, data=data)
  table, found = quantization.compare(
    config, model_dir, _NUM_IMAGES.value or 1, _FLOAT_LAYERS.value or 1
  )
  quantization.report(table, found)


if __name__ == '__main__':
  program.run('compare_int8', main, _FLAGS)
