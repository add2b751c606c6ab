"""Draws the embedded data set: a small recognition problem with biased cues.

The class of an image is the shape of its main object. The object's texture and
color agree with the class in most images of `train` and `validation`, and say
nothing about it in `stylized`: a network that reads texture or color instead of
shape shows itself there. Rotation, size, place, clutter, occlusion, light and
noise vary. Every image depends on nothing but the seed, its split and number.

  python tools/make_testdata.py --output_dir=testdata
  python tools/make_testdata.py --preview=contact_sheet.png
"""

from collections.abc import Sequence
import glob
import io
import os
import sys
from typing import NamedTuple, Union

from absl import app
from absl import flags
import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont

if not __package__:  # Run as a file: let it find its neighbor all the same.
  sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..'))
# TensorFlow only writes files here; what it says of GPUs would hide our lines.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import tensorflow as tf

from efficientnet_advprop.app import program
from efficientnet_advprop.data import tfrecords
from tools.drawing.scenes import SIZE
from tools.drawing.scenes import draw_image

_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir',
  os.path.join(os.path.dirname(os.path.abspath(__file__)), '../testdata'),
  'Folder for the TFRecords and labels.txt; made when missing.',
)
_SEED = flags.DEFINE_integer(
  'seed', 0, 'Same seed, same bytes (with the same Pillow).', lower_bound=0
)
_PREVIEW = flags.DEFINE_string(
  'preview', None, 'Draw a contact sheet to this PNG, and no data set.'
)

AGREEMENT = 0.85  # How often a cue agrees with the class, where it does.
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
  agreement: float  # Probability that a cue was made to fit the class.


SPLITS = (
  Split('train', 250, 4, AGREEMENT),
  Split('validation', 50, 2, AGREEMENT),
  Split('stylized', 50, 2, 1 / len(CLASSES)),
)


class Sample(NamedTuple):
  """One image as JPEG bytes, with the 1-based classes that it points to."""

  jpeg: bytes
  label: int
  texture_label: int
  color_label: int
  filename: str


# --- Records. ----------------------------------------------------------------


def draw_cue(label: int, agreement: float, rng: np.random.Generator) -> int:
  """The class that a cue points to: `label` with probability `agreement`.

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
  """The sample in the ImageNet schema, plus the classes of its two cues."""
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
    unfinished = os.path.join(output_dir, f'.{name}.tmp')
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
    ValueError: the folder holds shards that this data set does not have.
  """
  os.makedirs(output_dir, exist_ok=True)
  for split in splits:
    shards = glob.glob(os.path.join(output_dir, f'{split.name}-*-of-*'))
    for path in shards:
      if not path.endswith(f'-of-{split.num_shards:05d}'):
        raise ValueError(f'{path} belongs to another data set')
  total = 0
  for split in splits:
    size = write_split(output_dir, split, seed)
    count = split.images_per_class * len(CLASSES)
    print(f'{split.name}: {count} images, {size} bytes')
    total += size
  with open(os.path.join(output_dir, 'labels.txt'), 'w') as file:
    file.writelines(f'{cues.shape}\n' for cues in CLASSES)
  print(f'total: {total} bytes in {output_dir}')


# --- The contact sheet. ------------------------------------------------------


def contact_sheet(seed: int, images_per_cell: int = 4) -> Image.Image:
  """Classes down, splits across; below each image its texture and color."""
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


def _check(values: flags.FlagValues) -> None:
  if values.preview is not None and not values.preview.endswith('.png'):
    raise flags.Error(
      f'--preview: got {values.preview!r}; allowed: a name in .png'
    )


parse_flags = program.parser('make_testdata', flags.FLAGS, _check)


def main(_: list[str]) -> None:
  """Writes the data set, or the contact sheet where --preview asks for it."""
  try:
    if _PREVIEW.value is not None:
      contact_sheet(_SEED.value).save(_PREVIEW.value)
    else:
      write_dataset(os.path.normpath(_OUTPUT_DIR.value), SPLITS, _SEED.value)
  except (OSError, ValueError, tf.errors.OpError) as error:
    program.fail('make_testdata', error)


if __name__ == '__main__':
  app.run(main, flags_parser=parse_flags)
