"""Pictures to classify: files, folders, patterns and TFRecords, one by one.

Unlike the images of a test they need no labels, and one that cannot be read
does not stop the others.
"""

from collections.abc import Iterator, Sequence
import concurrent.futures
import itertools
import os
from typing import NamedTuple, Optional

import numpy as np
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.data import preprocessing
from efficientnet_advprop.data import tfrecords

_IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.gif', '.bmp')
# Formats of pictures that cannot be decoded here; a folder may hold them, and
# each gets its line.
_OTHER_SUFFIXES = ('.webp', '.tif', '.tiff', '.heic', '.avif')
_MAGIC_NUMBERS = (b'\xff\xd8\xff', b'\x89PNG', b'GIF8', b'BM')
_IMAGE_KEY = 'image/encoded'
_THREADS = 4
_WINDOW = 64  # Pictures that are read ahead.


class Picture(NamedTuple):
  """A picture, or why it cannot be read.

  Attributes:
    name: the path; for records `<path>:<number>`.
    pixels: float32 [size, size, 3] in [-1, 1]; None if it cannot be read.
    problem: why it cannot be read, in a line; empty if it can.
  """

  name: str
  pixels: Optional[np.ndarray]
  problem: str = ''


def find(inputs: Sequence[str]) -> list[str]:
  """Lists the files that inputs name.

  Args:
    inputs: each is a picture, a TFRecord file, a folder of pictures (with all
      folders in it) or of TFRecords, or a pattern such as `photos/*.jpg`.

  Returns:
    The paths of pictures and TFRecord files; those of a folder and of a
    pattern are sorted.

  Raises:
    DataError: an input names nothing; one line.
  """
  found: list[str] = []
  for name in inputs:
    if tf.io.gfile.isdir(name):
      files = _files_in(name)
    elif tf.io.gfile.exists(name):
      files = [name]
    else:
      files = sorted(_glob(name))
    if not files:
      raise errors.DataError(
        f'{name}: no pictures; allowed: a picture, a folder, a pattern such as'
        ' photos/*.jpg, or TFRecords'
      )
    found += files
  return found


def _glob(pattern: str) -> list[str]:
  try:
    return [p for p in tf.io.gfile.glob(pattern) if not tf.io.gfile.isdir(p)]
  except tf.errors.OpError:
    return []


def _files_in(folder: str) -> list[str]:
  """The pictures below a folder, or else its TFRecord files."""
  pictures, others = [], []
  for place, _, names in tf.io.gfile.walk(folder):
    for name in names:
      path = os.path.join(place, name)
      if name.lower().endswith(_IMAGE_SUFFIXES + _OTHER_SUFFIXES):
        pictures.append(path)
      elif not name.startswith('.'):
        others.append(path)
  if pictures:
    return sorted(pictures)
  return sorted(path for path in others if is_records(path))


def is_records(path: str) -> bool:
  """Whether a file is a TFRecord file, told by its first record."""
  with tf.io.gfile.GFile(path, 'rb') as file:
    if file.read(4).startswith(_MAGIC_NUMBERS):
      return False
  try:
    # A file that is shorter than a header has no record for TensorFlow.
    first = next(iter(tf.data.TFRecordDataset(path)), None)
  except tf.errors.OpError:
    return False
  return first is not None


def read(
  paths: Sequence[str], config: config_lib.DataConfig, image_size: int
) -> Iterator[Picture]:
  """Reads pictures, cropped and resized as for evaluation.

  Args:
    paths: as `find` returns them.
    config: `eval_crop_padding` is read.
    image_size: height and width in pixels.

  Yields:
    The pictures, in the order of the paths and of the records in a file.
  """

  def evaluation_image(encoded: tf.Tensor) -> tf.Tensor:
    image = preprocessing.evaluation_image(
      encoded, image_size, config.eval_crop_padding
    )
    return preprocessing.normalize(image)

  decode = tf.function(evaluation_image).get_concrete_function(
    tf.TensorSpec([], tf.string)
  )

  def prepare(item: '_Encoded') -> Picture:
    if item.problem:
      return Picture(item.name, None, item.problem)
    try:
      return Picture(item.name, decode(item.content).numpy())
    except tf.errors.OpError:
      problem = f'cannot be decoded ({len(item.content)} bytes)'
      if not item.content.startswith(_MAGIC_NUMBERS):
        problem = 'not a JPEG, PNG, GIF or BMP picture'
      return Picture(item.name, None, problem)

  stream = _encoded(paths)
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    while True:
      window = list(itertools.islice(stream, _WINDOW))
      if not window:
        return
      yield from pool.map(prepare, window)


class _Encoded(NamedTuple):
  name: str
  content: bytes
  problem: str = ''


def _encoded(paths: Sequence[str]) -> Iterator[_Encoded]:
  for path in paths:
    try:
      if not path.lower().endswith(_IMAGE_SUFFIXES) and is_records(path):
        yield from _records(path)
        continue
      with tf.io.gfile.GFile(path, 'rb') as file:
        yield _Encoded(path, file.read())
    except tf.errors.OpError as error:
      yield _Encoded(path, b'', errors.first_line(error))


def _records(path: str) -> Iterator[_Encoded]:
  """The pictures of a TFRecord file; nothing after a damaged record."""
  number = 0
  records = tf.data.TFRecordDataset(path).as_numpy_iterator()
  while True:
    name = f'{path}:{number}'
    try:
      record = next(records, None)
      # TensorFlow takes a cut header for the end of the file.
      is_damaged = record is None and _ends_in_header(path)
    except tf.errors.OpError:
      record, is_damaged = None, True
    if is_damaged:
      yield _Encoded(name, b'', 'damaged; the rest of the file is not read')
    if record is None:
      return
    yield _parsed(name, record)
    number += 1


def _ends_in_header(path: str) -> bool:
  """Whether a TFRecord file that was read to its end was cut; local alone."""
  return '://' not in path and tfrecords.count_records(path)[1] is not None


def _parsed(name: str, record: bytes) -> _Encoded:
  try:
    features = tf.train.Example.FromString(record).features.feature
    (content,) = features[_IMAGE_KEY].bytes_list.value
  except Exception:  # The parser of messages has errors of its own.
    return _Encoded(name, b'', f'a record without {_IMAGE_KEY}')
  return _Encoded(name, content)
