"""A contact sheet of what the input path makes of a data set."""

from collections.abc import Sequence
import os

import numpy as np
from PIL import Image
from PIL import ImageDraw

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.data import augmentation
from efficientnet_advprop.data import preprocessing
from efficientnet_advprop.data import records
from efficientnet_advprop.data import sources

import tensorflow as tf  # isort: skip

_CELL = 112
_MARGIN = 4
_CAPTION = 14
_COLUMNS = 10

Cell = tuple[str, np.ndarray]


def read_images(config: config_lib.DataConfig, split: str) -> tf.data.Dataset:
  """Reads the encoded images of a split, in the order of its files.

  Raises:
    DataError: the split does not exist.
  """
  source = sources.find_set(config, split)

  def encoded(record: records.Record) -> tf.Tensor:
    return records.parse(source, preprocessing.image_shape, record)[0]

  files = tf.data.Dataset.range(len(source.files))
  return records.read(source, files).map(encoded)


def num_classes(directory: str) -> int:
  """Counts class folders; returns more than any label for TFRecords."""
  if not os.path.isdir(directory):
    return 2**31 - 1
  return sum(entry.is_dir() for entry in os.scandir(directory))


def cells(
  encoded: tf.Tensor,
  seed: int,
  size: int,
  level: float,
  config: config_lib.DataConfig,
) -> list[Cell]:
  """Returns names and uint8 pictures of all that is shown of one image."""
  shape = preprocessing.image_shape(encoded)
  height, width, _ = shape.numpy()
  whole = tf.constant([0, 0, height, width])
  original = preprocessing.decode_and_crop(encoded, whole)
  crop, other = (
    preprocessing.training_image(encoded, shape, [seed, k], size, config)
    for k in range(2)
  )
  shown = [('original', original), ('crop', crop)]
  for name in augmentation.RANDAUGMENT_OPERATIONS:
    value = augmentation.randaugment_magnitude(name, level, size)
    changed = augmentation.apply_operation(crop, name, value)
    shown.append((name, changed))
  shown.append(('plain view', other))
  augmented = preprocessing.augment(other, tf.constant([seed, 1]), config)
  shown.append(('augmented view', augmented))
  return [(name, image.numpy()) for name, image in shown]


def draw(blocks: Sequence[Sequence[Cell]]) -> Image.Image:
  """Draws a sheet with a block of captioned pictures for each image."""
  lines = -(-max(len(block) for block in blocks) // _COLUMNS)
  step_x, step_y = _CELL + _MARGIN, _CELL + _MARGIN + _CAPTION
  block_height = lines * step_y + 3 * _MARGIN
  size = _COLUMNS * step_x + _MARGIN, len(blocks) * block_height
  sheet = Image.new('RGB', size, 'white')
  pen = ImageDraw.Draw(sheet)
  for row, block in enumerate(blocks):
    for place, (name, picture) in enumerate(block):
      x = _MARGIN + place % _COLUMNS * step_x
      y = _MARGIN + row * block_height + place // _COLUMNS * step_y
      image = Image.fromarray(picture)
      small = max(image.size) < _CELL  # Show the pixels of tiny images.
      scale = _CELL / max(image.size)
      image = image.resize(
        [max(1, round(side * scale)) for side in image.size],
        Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS,
      )
      sheet.paste(image, (x, y))
      pen.text((x, y + _CELL), name, fill='black')
  return sheet


def sheet(
  data_dir: str, split: str, images: int, size: int, level: float, seed: int
) -> Image.Image:
  """Draws the first images of a split.

  Args:
    data_dir: TFRecords or class folders; empty for the embedded data set.
    split: the part of the data set.
    images: how many images are drawn.
    size: height and width of crops, in pixels.
    level: strength of the operations, from 0 to 10.
    seed: decides on crops and views.

  Raises:
    DataError: the split does not exist.
  """
  config = config_lib.DataConfig(
    dir=data_dir,
    num_classes=num_classes(os.path.join(data_dir, split)),
  )
  dataset = read_images(config, split).take(images)
  return draw(
    [
      cells(encoded, seed + index, size, level, config)
      for index, encoded in enumerate(dataset)
    ]
  )
