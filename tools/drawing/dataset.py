"""The embedded data set: classes with cues, splits, records, a preview."""

from collections.abc import Sequence
import glob
import io
import os
from typing import NamedTuple, Union

import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont
import tensorflow as tf

from efficientnet_advprop.base import errors
from efficientnet_advprop.base import files
from efficientnet_advprop.data import tfrecords
from tools.drawing.scenes import SIZE
from tools.drawing.scenes import draw_image

AGREEMENT = 0.85  # Probability in the biased splits.
_JPEG_QUALITY = 85


class ClassCues(NamedTuple):
  """A class and what usually goes with it; the hue is in degrees."""

  shape: str
  texture: str
  color: str
  hue: float


# Label n is entry n - 1. No two shapes are alike under rotation or mirroring.
CLASSES = (
  ClassCues('arrow', 'stripes', 'green', 125),
  ClassCues('corner', 'dots', 'red', 0),
  ClassCues('crescent', 'bricks', 'violet', 272),
  ClassCues('cross', 'waves', 'yellow', 52),
  ClassCues('disc', 'checker', 'sky', 198),
  ClassCues('heart', 'grid', 'orange', 27),
  ClassCues('ring', 'scales', 'pink', 322),
  ClassCues('square', 'speckle', 'teal', 165),
  ClassCues('star', 'cells', 'blue', 230),
  ClassCues('triangle', 'weave', 'lime', 84),
)


class Split(NamedTuple):
  """How many images a split has, in how many files, and how it is drawn."""

  name: str
  images_per_class: int
  num_shards: int
  agreement: float  # Probability that a cue is that of the class.


SPLITS = (
  Split('train', 250, 4, AGREEMENT),
  Split('validation', 50, 2, AGREEMENT),
  Split('stylized', 50, 2, 1 / len(CLASSES)),
)


class Sample(NamedTuple):
  """One image as JPEG bytes, with the classes of its cues, from 1."""

  jpeg: bytes
  label: int
  texture_label: int
  color_label: int
  filename: str


def draw_cue(label: int, agreement: float, rng: np.random.Generator) -> int:
  """Draws the class that a cue has: `label` with probability `agreement`.

  Otherwise one of the other classes, all equally likely. Labels are 1-based.
  An agreement of 1 / number of classes makes the cue independent of the class.
  """
  if rng.random() < agreement:
    return label
  others = [n for n in range(1, len(CLASSES) + 1) if n != label]
  return others[rng.integers(len(others))]


def draw_sample(split: Split, label: int, number: int, seed: int) -> Sample:
  """Draws image `number` of a class (1-based label) in a split."""
  split_number = [s.name for s in SPLITS].index(split.name)
  rng = np.random.default_rng([seed, split_number, label, number])
  texture_label = draw_cue(label, split.agreement, rng)
  color_label = draw_cue(label, split.agreement, rng)
  shape = CLASSES[label - 1].shape
  texture = CLASSES[texture_label - 1].texture
  image = draw_image(shape, texture, CLASSES[color_label - 1].hue, rng)
  buffer = io.BytesIO()
  image.save(buffer, 'JPEG', quality=_JPEG_QUALITY, optimize=True)
  filename = f'{split.name}_{shape}_{number:04d}.JPEG'
  jpeg = buffer.getvalue()
  return Sample(jpeg, label, texture_label, color_label, filename)


def _serialized(sample: Sample) -> bytes:
  """Encodes a sample in the ImageNet schema, with the classes of its cues."""
  name = CLASSES[sample.label - 1].shape
  values: dict[str, Union[int, str, bytes]] = {
    'image/encoded': sample.jpeg,
    'image/class/label': sample.label,
    'image/class/synset': name,
    'image/class/text': name,
    'image/texture/label': sample.texture_label,
    'image/color/label': sample.color_label,
    'image/height': SIZE,
    'image/width': SIZE,
    'image/channels': 3,
    'image/colorspace': 'RGB',
    'image/format': 'JPEG',
    'image/filename': sample.filename,
  }
  return tfrecords.encode_example(values)


def write_split(output_dir: str, split: Split, seed: int) -> int:
  """Writes the shards of a split, its classes mixed; returns their bytes."""
  numbered = [
    (label, number)
    for label in range(1, len(CLASSES) + 1)
    for number in range(split.images_per_class)
  ]
  order = np.random.default_rng(seed).permutation(len(numbered))
  shards = np.array_split(order, split.num_shards)
  written = 0
  for shard_number, members in enumerate(shards):
    name = f'{split.name}-{shard_number:05d}-of-{split.num_shards:05d}'
    path = os.path.join(output_dir, name)
    unfinished = files.temporary_name(path)
    with tf.io.TFRecordWriter(unfinished) as writer:
      for member in members:
        label, number = numbered[member]
        sample = draw_sample(split, label, number, seed)
        writer.write(_serialized(sample))
    os.replace(unfinished, path)
    written += os.path.getsize(path)
  return written


def write_dataset(output_dir: str, splits: Sequence[Split], seed: int) -> None:
  """Writes labels.txt and all splits, and prints what was written.

  Raises:
    OSError: the folder cannot be made or written.
    DataError: the folder holds shards that this data set does not have.
  """
  os.makedirs(output_dir, exist_ok=True)
  for split in splits:
    shards = glob.glob(os.path.join(output_dir, f'{split.name}-*-of-*'))
    for path in shards:
      if not path.endswith(f'-of-{split.num_shards:05d}'):
        raise errors.DataError(f'{path} belongs to another data set')
  total = 0
  for split in splits:
    size = write_split(output_dir, split, seed)
    count = split.images_per_class * len(CLASSES)
    print(f'{split.name}: {count} images, {size} bytes')
    total += size
  labels = ''.join(f'{cues.shape}\n' for cues in CLASSES)
  files.write(os.path.join(output_dir, 'labels.txt'), labels)
  print(f'total: {total} bytes in {output_dir}')


def contact_sheet(seed: int, images_per_cell: int = 4) -> Image.Image:
  """Draws classes as rows and splits as columns, with the names of cues.

  Args:
    seed: of the data set.
    images_per_cell: how many images of a class and a split are shown.
  """
  zoom, left, top, caption = 3, 110, 30, 20
  column = images_per_cell * (zoom * SIZE + 6) + 16
  row = zoom * SIZE + caption
  size = (left + column * len(SPLITS), top + row * len(CLASSES))
  sheet = Image.new('RGB', size, 'white')
  draw = ImageDraw.Draw(sheet)
  title_font, font = ImageFont.load_default(16), ImageFont.load_default(12)
  for label, cues in enumerate(CLASSES, 1):
    y = top + (label - 1) * row
    draw.text((8, y + 36), cues.shape, 'black', title_font)
    draw.text((8, y + 58), f'{cues.texture}\n{cues.color}', 'gray', font)
    for place, split in enumerate(SPLITS):
      draw.text((left + place * column, 6), split.name, 'black', title_font)
      for number in range(images_per_cell):
        sample = draw_sample(split, label, number, seed)
        image = Image.open(io.BytesIO(sample.jpeg))
        x = left + place * column + number * (zoom * SIZE + 6)
        sheet.paste(
          image.resize((zoom * SIZE,) * 2, Image.Resampling.BICUBIC), (x, y)
        )
        texture = CLASSES[sample.texture_label - 1].texture
        color = CLASSES[sample.color_label - 1].color
        agree = sample.texture_label == sample.color_label == label
        text_color = 'gray' if agree else 'firebrick'
        text = f'{texture} {color}'
        draw.text((x, y + zoom * SIZE + 2), text, text_color, font)
  return sheet
