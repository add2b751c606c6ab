"""Draws an attack: clean image, adversarial image, amplified difference."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL import ImageDraw
import tensorflow as tf

from efficientnet_advprop import attacks
from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import files
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.data import sources

_MIN_TILE = 96  # Pixels; smaller images are enlarged, each pixel a square.
_MARGIN = 4
_HEADER = 16
_CAPTION = 14


class Attacked(NamedTuple):
  """Images, their attacked counterparts, and what a network answers."""

  images: np.ndarray  # float32 [n, height, width, 3] in [-1, 1]
  adversarial: np.ndarray  # like `images`
  labels: np.ndarray  # int32 [n]
  answers: np.ndarray  # int64 [n], to `images`
  adversarial_answers: np.ndarray  # int64 [n], to `adversarial`


def attacked(
  network: tf.keras.Model,
  config: config_lib.Config,
  domain: str,
  num_images: int,
) -> Attacked:
  """Attacks the first evaluation images through the norms of a domain.

  Args:
    network: the network that is attacked and asked, in inference mode.
    config: the run, with its data and its attack.
    domain: domain of its norms.
    num_images: how many images.

  Raises:
    DataError: the images are missing.
  """
  source = sources.find(config.data, config.data.eval_split)
  dataset = pipeline.eval_dataset(config, source, batch_size=num_images)
  batch = next(iter(dataset))

  def logits_fn(images: tf.Tensor) -> tf.Tensor:
    return network(images, training=False, domain=domain)

  @tf.function
  def run(images: tf.Tensor, labels: tf.Tensor) -> list[tf.Tensor]:
    adversarial = attacks.attack(logits_fn, images, labels, config.attack, 0)
    answers = [tf.argmax(logits_fn(x), -1) for x in (images, adversarial)]
    return [images, adversarial, labels, *answers]

  return Attacked(*(x.numpy() for x in run(batch['image'], batch['label'])))


def draw(shown: Attacked, epsilon: float) -> np.ndarray:
  """Draws a row for each image.

  Args:
    shown: the images and what a network answers.
    epsilon: largest difference of the attack, in 0-255 units.

  Returns:
    uint8 [height, width, 3]. Headings state epsilon and the factor by which
    the difference is amplified around grey; captions state the class, by its
    number, and what the network says.
  """
  levels = (shown.adversarial - shown.images) / attacks.PIXEL_LEVEL
  factor = max(1, int(127 / max(1.0, np.abs(levels).max())))
  columns = {
    'clean': (shown.images + 1) * 127.5,
    f'epsilon {epsilon:g}': (shown.adversarial + 1) * 127.5,
    f'difference x{factor}': 127.5 + factor * levels,
  }
  captions = [
    (f'{label}: says {answer}', f'says {other}', '')
    for label, answer, other in zip(
      shown.labels, shown.answers, shown.adversarial_answers
    )
  ]
  return _sheet(columns, captions)


def _sheet(
  columns: dict[str, np.ndarray], captions: Sequence[tuple[str, ...]]
) -> np.ndarray:
  """Lays out columns of images, float [n, height, width, 3] in [0, 255]."""
  sides = next(iter(columns.values())).shape[1:3]
  scale = -(-_MIN_TILE // sides[0])
  width = scale * sides[1] + _MARGIN
  height = scale * sides[0] + _MARGIN + _CAPTION
  size = width * len(columns) + _MARGIN, height * len(captions) + _HEADER
  sheet = Image.new('RGB', size, 'white')
  pen = ImageDraw.Draw(sheet)
  for column, (name, pixels) in enumerate(columns.items()):
    left = _MARGIN + column * width
    pen.text((left, 2), name, fill='black')
    for row, tile in enumerate(np.clip(np.rint(pixels), 0, 255)):
      top = _HEADER + row * height
      pen.text((left, top), captions[row][column], fill='black')
      enlarged = tile.astype(np.uint8).repeat(scale, 0).repeat(scale, 1)
      sheet.paste(Image.fromarray(enlarged), (left, top + _CAPTION))
  return np.asarray(sheet)


def write_png(path: str, pixels: np.ndarray) -> None:
  """Writes uint8 [height, width, 3] as a PNG, whole or not at all."""
  files.write(path, tf.io.encode_png(pixels).numpy())
