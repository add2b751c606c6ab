"""Draws a small data set for fine-tuning: five shapes, 40 images of each.

  .venv/bin/python tools/make_few_shot_data.py --output_dir=runs/few_shot

The scenes are those of the embedded data set, but texture and color of the
object tell nothing about its class. The images are files in class folders, 40
of a class to train on and 100 to validate. Every image depends on nothing but
the seed, its split, class and number.
"""

import os
import sys

from absl import app
from absl import flags
import numpy as np

if not __package__:  # Run as a file: let it find its neighbor all the same.
  sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..'))

from efficientnet_advprop.app import program
from tools.drawing.scenes import TEXTURES
from tools.drawing.scenes import draw_image

_FLAGS = program.flag_values(__name__)
_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir', None, 'A new folder.', flag_values=_FLAGS
)
_SEED = flags.DEFINE_integer(
  'seed', 0, 'Same seed, same images.', lower_bound=0, flag_values=_FLAGS
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


def main(_: list[str]) -> None:
  """Writes the data set; an error ends in one line and exit code 2."""
  try:
    write_dataset(str(_OUTPUT_DIR.value), _SEED.value)
  except OSError as error:
    program.fail('make_few_shot_data', error)
  print(f'{len(CLASSES)} classes in {_OUTPUT_DIR.value}')


if __name__ == '__main__':
  flags.mark_flag_as_required('output_dir')
  app.run(main, flags_parser=program.parser('make_few_shot_data', _FLAGS))
