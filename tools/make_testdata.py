"""Draws the embedded data set: a small recognition problem with biased cues.

The class of an image is the shape of its main object. The object's texture and
color agree with the class in most images of `train` and `validation`, and are
independent of it in `stylized`, which shows whether a network reads texture or
color instead of shape. Rotation, size, place, clutter, occlusion, light and
noise vary. An image depends only on the seed, its split and its number.

  .venv/bin/python tools/make_testdata.py --output_dir=testdata
  .venv/bin/python tools/make_testdata.py --preview=contact_sheet.png
"""

from collections.abc import Sequence
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop.app import program
from efficientnet_advprop.base import paths
from tools.drawing import dataset

_FLAGS = program.flag_values(__name__)
_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir',
  paths.embedded_data(),
  'Folder for the TFRecords and labels.txt; it is made if it is missing.',
  flag_values=_FLAGS,
)
_SEED = flags.DEFINE_integer(
  'seed',
  0,
  'The same seed gives the same bytes, with the same version of Pillow.',
  0,
  flag_values=_FLAGS,
)
_PREVIEW = flags.DEFINE_string(
  'preview',
  None,
  'Draw a contact sheet to this PNG, and no data set.',
  flag_values=_FLAGS,
)


def _check(values: flags.FlagValues) -> None:
  if values.preview is not None and not values.preview.endswith('.png'):
    raise flags.Error(
      f'--preview: got {values.preview!r}; allowed: a name in .png'
    )


def main(_: Sequence[str]) -> None:
  """Writes the data set, or the contact sheet if --preview asks for it."""
  seed = _SEED.value or 0
  if _PREVIEW.value is not None:
    dataset.contact_sheet(seed).save(_PREVIEW.value)
  else:
    dataset.write_dataset(str(_OUTPUT_DIR.value), dataset.SPLITS, seed)


if __name__ == '__main__':
  program.run('make_testdata', main, _FLAGS, _check)
