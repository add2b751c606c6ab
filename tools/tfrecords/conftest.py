"""A small conversion, for the tests of this folder."""

from pathlib import Path
import shutil

import numpy as np
from PIL import Image
import pytest

from tools.tfrecords import conversion

CLASSES = ('n01', 'n02', 'n03')
SHARDS = {'train': 30, 'validation': 2}


def draw(number):
  """Returns a picture of random colors."""
  colors = np.random.default_rng(number).integers(0, 256, [3, 4, 3], np.uint8)
  return Image.fromarray(colors).resize((40 + number % 5, 30))


@pytest.fixture(scope='session', name='raw')
def _raw(tmp_path_factory):
  """Class folders of 120 and 30 sound images, the first with 5 odd ones."""
  root = tmp_path_factory.mktemp('raw')
  for split, per_class in (('train', 40), ('validation', 10)):
    for place, name in enumerate(CLASSES):
      folder = root / split / name
      folder.mkdir(parents=True)
      for number in range(per_class):
        image = draw(place * 100 + number)
        image.save(folder / f'{split}_{name}_{number:02d}.JPEG')
  folder = root / 'train'
  exif = Image.Exif()
  exif[0x0112] = 6
  draw(1).convert('CMYK').save(folder / 'n01/train_n01_00.JPEG')
  draw(2).convert('L').save(folder / 'n01/train_n01_01.JPEG')
  draw(3).save(folder / 'n02/train_n02_00.JPEG', 'PNG')
  draw(4).save(folder / 'n02/train_n02_01.JPEG', exif=exif)
  draw(5).save(folder / 'n03/train_n03_00.JPEG', 'GIF')
  return root


def convert(root, output, **changes):
  """Converts the class folders in `root` with the settings of these tests."""
  options = {
    'inputs': {split: f'{root}/{split}' for split in SHARDS},
    'num_shards': SHARDS,
    'labels_file': None,
    'seed': 3,
    'num_workers': 1,
    'max_unreadable': 0,
    **changes,
  }
  conversion.convert(str(output), **options)


@pytest.fixture(scope='session', name='converted')
def _converted(raw, tmp_path_factory):
  """The TFRecords of `raw`, written by one worker without a stop."""
  output = tmp_path_factory.mktemp('converted')
  convert(raw, output)
  return output


@pytest.fixture(name='copy')
def _copy(converted, tmp_path):
  return Path(shutil.copytree(converted, tmp_path / 'copy'))
