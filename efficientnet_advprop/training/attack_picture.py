"""The picture of an attack: clean | adversarial | perturbation."""

import numpy as np
from PIL import Image
from PIL import ImageDraw
import tensorflow as tf

from efficientnet_advprop import attacks
from efficientnet_advprop.base import files

_MIN_TILE = 96  # Pixels; smaller images are enlarged, each pixel a square.
_MARGIN = 4
_HEADER = 16


def attack_grid(images: np.ndarray, adversarial: np.ndarray) -> np.ndarray:
  """Draws images, their adversarial counterparts and the amplified difference.

  Args:
    images: float [n, height, width, 3] in [-1, 1].
    adversarial: the same shape and range.

  Returns:
    uint8 [height, width, 3]: a row for each image, under headings that state
    the factor by which the perturbation is amplified around grey.
  """
  levels = (adversarial - images) / attacks.PIXEL_LEVEL
  factor = max(1, int(127 / max(1.0, np.abs(levels).max())))
  columns = {
    'clean': (images + 1) * 127.5,
    'adversarial': (adversarial + 1) * 127.5,
    f'difference x{factor}': 127.5 + factor * levels,
  }
  scale = -(-_MIN_TILE // images.shape[1])
  height, width = (scale * side + _MARGIN for side in images.shape[1:3])
  sheet = Image.new(
    'RGB',
    (width * len(columns) + _MARGIN, height * len(images) + _HEADER),
    'white',
  )
  draw = ImageDraw.Draw(sheet)
  for column, (name, pixels) in enumerate(columns.items()):
    left = _MARGIN + column * width
    draw.text((left, 2), name, fill='black')
    for row, tile in enumerate(np.clip(np.rint(pixels), 0, 255)):
      enlarged = tile.astype(np.uint8).repeat(scale, 0).repeat(scale, 1)
      sheet.paste(Image.fromarray(enlarged), (left, _HEADER + row * height))
  return np.asarray(sheet)


def write_png(path: str, pixels: np.ndarray) -> None:
  """Writes uint8 [height, width, 3] as a PNG, whole or not at all."""
  files.write(path, tf.io.encode_png(pixels).numpy())
