"""Draws a small data set for fine-tuning: five shapes, 40 images of each.

  .venv/bin/python tools/make_few_shot_data.py --output_dir=runs/few_shot

The scenes are those of the embedded data set, but texture and color of the
object are independent of its class. The images are files in class folders, 40
of a class to train on and 100 to validate. An image depends only on the
seed, its split, its class and its number.
"""

from collections.abc import Sequence
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop.app import program
from tools.drawing.scenes import TEXTURES
from tools.drawing.scenes import draw_image

_FLAGS = program.flag_values(__name__)
_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir', None, 'A new folder.', required=True, flag_values=_FLAGS
)
_SEED = flags.DEFINE_integer(
  'seed', 0, 'The same seed gives the same images.', 0, flag_values=_FLAGS
)

CLASSES = ('crescent', 'cross', 'heart', 'ring', 'triangle')
IMAGES_PER_CLASS = {'train': 40, 'validation': 100}


def write_dataset(output_dir: str, seed: int) -> None:
  """Writes `<output_dir>/<split>/<class>/<number>.png`.

  Raises:
    OSError: a folder is there already, or cannot be written.
  """
  for split_number, (split, count) in enumerate(IMAGES_PER_CLASS.items()):
    for label, shape in enumerate(CLASSES):
      folder = os.path.join(output_dir, split, shape)
      os.makedirs(folder)
      for number in range(count):
        rng = np.random.default_rng([seed, split_number, label, number])
        texture = list(TEXTURES)[rng.integers(len(TEXTURES))]
        image = draw_image(shape, texture, rng.uniform(0, 360), rng)
        image.save(os.path.join(folder, f'{number:03d}.png'))


def main(_: Sequence[str]) -> None:
  """Writes the data set."""
  write_dataset(str(_OUTPUT_DIR.value), _SEED.value or 0)
  print(f'{len(CLASSES)} classes in {_OUTPUT_DIR.value}')


if __name__ == '__main__':
  program.run('make_few_shot_data', main, _FLAGS)
