r"""Draws a contact sheet of what the input path makes of a data set.

One row per image: the original, a random crop, each operation of AutoAugment
and RandAugment on that crop (with the strength of --level), and the two views
on which fine-grained AdvProp trains.

  .venv/bin/python tools/preview_data.py --data_dir=<images> \
      --split=train --output=/tmp/preview.png

Without --data_dir the embedded data set is shown.
"""

from collections.abc import Sequence
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop.app import program
from tools.drawing import preview

_FLAGS = program.flag_values(__name__)
_DATA_DIR = flags.DEFINE_string(
  'data_dir',
  '',
  'TFRecords or class folders. Empty: the embedded data set.',
  flag_values=_FLAGS,
)
_SPLIT = flags.DEFINE_string(
  'split', 'train', 'The part of the data set.', flag_values=_FLAGS
)
_IMAGES = flags.DEFINE_integer(
  'images', 4, 'Number of images.', 1, 64, flag_values=_FLAGS
)
_IMAGE_SIZE = flags.DEFINE_integer(
  'image_size', 224, 'Size of the crops, in pixels.', 8, flag_values=_FLAGS
)
_LEVEL = flags.DEFINE_float(
  'level', 8, 'Strength of the operations.', 0, 10, flag_values=_FLAGS
)
_SEED = flags.DEFINE_integer(
  'seed', 0, 'Decides on crops and views.', flag_values=_FLAGS
)
_OUTPUT = flags.DEFINE_string(
  'output', 'preview.png', 'The file to write.', flag_values=_FLAGS
)


def main(_: Sequence[str]) -> None:
  """Draws the sheet, and writes it."""
  sheet = preview.sheet(
    _DATA_DIR.value or '',
    str(_SPLIT.value),
    _IMAGES.value or 1,
    _IMAGE_SIZE.value or 8,
    _LEVEL.value or 0,
    _SEED.value or 0,
  )
  sheet.save(_OUTPUT.value)
  print(_OUTPUT.value)


if __name__ == '__main__':
  program.run('preview_data', main, _FLAGS)
