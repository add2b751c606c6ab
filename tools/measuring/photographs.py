"""The images on which the input path is measured."""

import importlib.util
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.data import records
from efficientnet_advprop.data import sources

import tensorflow as tf  # isort: skip

NUM_PICTURES = 16
_WIDTH, _HEIGHT = 500, 400  # In pixels, about ImageNet's mean size.


class Pictures(NamedTuple):
  """JPEGs, and the name by which a report calls them."""

  name: str
  jpegs: list[bytes]


def default_pictures() -> str:
  """Returns `photographs`, or `noise` without scikit-learn."""
  return 'photographs' if importlib.util.find_spec('sklearn') else 'noise'


def find_pictures(name: str) -> Pictures:
  """Returns the pictures that a name or a folder stands for.

  Args:
    name: `photographs`, `noise`, or a folder of TFRecords or class folders.

  Raises:
    DataError: the folder holds too few JPEGs, or scikit-learn is missing.
  """
  if name == 'noise':
    rng = np.random.default_rng(0)
    drawn = [jpeg(_drawn(rng)) for _ in range(NUM_PICTURES)]
    return Pictures('drawn noise, 500 x 400', drawn)
  if name == 'photographs':
    jpegs = [jpeg(picture) for picture in photographs()]
    return Pictures("crops of scikit-learn's photographs, 500 x 400", jpegs)
  data = config_lib.DataConfig(dir=name)
  try:
    source = sources.find_set(data, 'train')
  except sources.MissingSplitError:
    source = sources.find_set(data, 'validation')
  files = tf.data.Dataset.range(len(source.files))
  found: list[bytes] = []
  for record in records.read(source, files):
    encoded, _ = records.image_and_label(source, record)
    if tf.io.is_jpeg(encoded):
      found.append(encoded.numpy())
    if len(found) == NUM_PICTURES:
      return Pictures(f'{NUM_PICTURES} JPEGs of {name}', found)
  raise errors.DataError(f'{name}: {len(found)} JPEGs of {NUM_PICTURES}')


def photographs() -> list[np.ndarray]:
  """Returns uint8 pictures [400, 500, 3], cut from two photographs."""
  rng = np.random.default_rng(0)
  try:
    from sklearn import datasets
  except ImportError:
    raise errors.DataError(
      '--pictures=photographs: needs the package scikit-learn'
    ) from None
  pictures = []
  for index in range(NUM_PICTURES):
    picture = datasets.load_sample_images().images[index % 2]
    top = rng.integers(picture.shape[0] - _HEIGHT + 1)
    left = rng.integers(picture.shape[1] - _WIDTH + 1)
    pictures.append(picture[top : top + _HEIGHT, left : left + _WIDTH])
  return pictures


def _drawn(rng: np.random.Generator) -> np.ndarray:
  """Draws noise whose spectrum falls as 1/f, like that of photographs."""
  y = np.fft.fftfreq(_HEIGHT)[:, np.newaxis, np.newaxis]
  x = np.fft.fftfreq(_WIDTH)[np.newaxis, :, np.newaxis]
  spectrum = np.fft.fft2(rng.normal(size=(_HEIGHT, _WIDTH, 3)), axes=(0, 1))
  spectrum /= np.maximum(np.hypot(x, y), 1 / _WIDTH)
  values = np.fft.ifft2(spectrum, axes=(0, 1)).real
  values = (values - values.mean()) / values.std()
  return np.clip(128 + 60 * values, 0, 255).astype(np.uint8)


def jpeg(picture: np.ndarray) -> bytes:
  """Encodes uint8 [height, width, 3]."""
  buffer = io.BytesIO()
  Image.fromarray(picture).save(buffer, 'JPEG', quality=92)
  return buffer.getvalue()
