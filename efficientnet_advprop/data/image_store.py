"""Decoded images in one long row of bytes, addressed by their numbers.

The bytes are a file, on a disk or in memory alone, which is mapped into memory
and used as a tensor without a copy. So processes that map the same file share
its pages, and the system may drop pages of a file on a disk when memory is
short.
"""

import dataclasses
import os
import tempfile
from typing import BinaryIO, Union
import zipfile

import numpy as np
import tensorflow as tf

# At the start of the bytes, which are never empty.
HEADER = b'efficientnet_advprop decoded images 1\n'.ljust(64, b'\0')


@dataclasses.dataclass(frozen=True)
class Index:
  """Where images are in the bytes, and what else is known of them.

  Attributes:
    starts: of the first byte, int64 [images].
    sides: height and width in pixels, int32 [images, 2]; 0 of a bad one.
    labels: classes from 0, int32 [images].
    bad: the numbers of images that cannot be used, int64 [bad].
    problems: what is wrong with each of them, bytes [bad].
    size: of the whole file, in bytes.
  """

  starts: np.ndarray
  sides: np.ndarray
  labels: np.ndarray
  bad: np.ndarray
  problems: np.ndarray
  size: int


class Store:
  """Tensors to look up images with, inside of tf.data."""

  def __init__(self, file: Union[str, BinaryIO], index: Index):
    """Maps a file into memory.

    Args:
      file: its path, or the open file; it may be closed afterwards.
      index: of its images.
    """
    # Private pages that nobody writes: the interface takes writable arrays
    # only.
    mapped = np.memmap(file, np.uint8, mode='c')
    with tf.init_scope():
      self._bytes = tf.experimental.dlpack.from_dlpack(mapped.__dlpack__())
      self._starts = tf.constant(index.starts, tf.int64)
      self._sides = tf.constant(index.sides, tf.int32)
      self._labels = tf.constant(index.labels, tf.int32)
      self._bad = tf.constant(index.bad, tf.int64)
      self._problems = tf.constant(index.problems.tolist(), tf.string)

  def shape(self, number: tf.Tensor) -> tf.Tensor:
    """Returns height, width and 3, int32 [3]; zeros for a bad image."""
    return tf.concat([self._sides[number], [3]], 0)

  def label(self, number: tf.Tensor) -> tf.Tensor:
    """Returns the class of an image, int32 []."""
    return self._labels[number]

  def problem(self, number: tf.Tensor) -> tf.Tensor:
    """Returns what is wrong with a bad image, a string; fails for others."""
    return self._problems[tf.where(self._bad == number)[0, 0]]

  def crop(self, number: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
    """Cuts a part out of an image of levels.

    Args:
      number: of the image, int64 [].
      box: int32 [4]: top, left, height, width in pixels.

    Returns:
      uint8 [height, width, 3].
    """
    top, left, height, width = tf.unstack(box)
    row = 3 * self._sides[number, 1]  # Bytes.
    start = self._starts[number] + tf.cast(top, tf.int64) * tf.cast(
      row, tf.int64
    )
    rows = self._values(start, height * row)
    rows = tf.reshape(rows, [height, row // 3, 3])
    return rows[:, left : left + width]

  def floats(self, number: tf.Tensor, side: int) -> tf.Tensor:
    """Returns an image of numbers, float32 [side, side, 3]; fails if bad."""
    found = self._sides[number, 0] == side
    with tf.control_dependencies([tf.debugging.Assert(found, ['-'])]):
      values = self._values(self._starts[number], side * side * 3 * 4)
    return tf.bitcast(tf.reshape(values, [side, side, 3, 4]), tf.float32)

  def _values(self, start: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    size = tf.cast(size, tf.int64)
    return tf.slice(self._bytes, start[tf.newaxis], size[tf.newaxis])


def file_in_memory() -> BinaryIO:
  """Returns a file without a name, which goes when nobody maps it."""
  if hasattr(os, 'memfd_create'):
    return open(os.memfd_create('decoded images'), 'w+b')
  # The system keeps as much of it in memory as it can.
  return tempfile.TemporaryFile()


def write_index(path: str, index: Index) -> None:
  """Writes an index as a file of NumPy arrays."""
  with open(path, 'wb') as file:
    np.savez(file, **dataclasses.asdict(index))
    file.flush()
    os.fsync(file.fileno())


def read_index(path: str) -> Index:
  """Reads what `write_index` wrote.

  Raises:
    OSError: it cannot be read.
    ValueError: it is damaged.
  """
  try:
    with open(path, 'rb') as file, np.load(file) as arrays:
      return Index(**{key: arrays[key] for key in Index.__annotations__})
  except (KeyError, EOFError, zipfile.BadZipFile) as error:
    raise ValueError(str(error)) from error
