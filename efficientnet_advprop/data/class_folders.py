"""Images in folders named after their classes."""

import collections
import dataclasses
import hashlib
import os
from typing import Optional

from absl import logging
import tensorflow as tf

from efficientnet_advprop.base import errors
from efficientnet_advprop.data import records

_IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')
# Pictures that are counted and left out.
_OTHER_SUFFIXES = (
  *('.avif', '.bmp', '.gif', '.heic', '.heif', '.jfif', '.jp2', '.jxl'),
  *('.tif', '.tiff', '.webp'),
)


@dataclasses.dataclass(frozen=True)
class Part:
  """A part of each class: the images held out for evaluation, or the others.

  Which ones these are depends on their names and the seed alone. Each class
  gives its share, at least one image and not all.

  Attributes:
    fraction: the share that is held out.
    seed: of the choice.
    is_held_out: which of the two parts.
  """

  fraction: float
  seed: int
  is_held_out: bool

  def of(self, path: str, class_name: str, names: list[str]) -> list[str]:
    """Returns the part of a class, in the order of `names`.

    Raises:
      DataError: the class has a single image.
    """
    if len(names) < 2:
      raise errors.DataError(
        f'{path}: one image cannot be divided by data.validation_fraction'
      )

    def draw(name: str) -> bytes:
      text = f'{self.seed}/{class_name}/{name}'
      return hashlib.sha256(os.fsencode(text)).digest()

    count = round(self.fraction * len(names))
    count = min(max(count, 1), len(names) - 1)
    held_out = set(sorted(names, key=draw)[:count])
    return [name for name in names if (name in held_out) == self.is_held_out]


def names_in(directory: str) -> list[str]:
  """Returns the folders in a folder, sorted; the first is the first class."""
  # Remote listings end the names of folders in a slash.
  names = sorted(n.rstrip('/') for n in tf.io.gfile.listdir(directory))
  return [
    name
    for name in names
    if not name.startswith('.')
    and tf.io.gfile.isdir(os.path.join(directory, name))
  ]


def check_same(folder: str, other: str, classes: list[str]) -> None:
  """Raises DataError where classes differ: labels go by their order.

  Args:
    folder: where `classes` are.
    other: the folder that must have the same class folders.
    classes: `names_in(folder)`.
  """
  differing = set(classes) ^ set(names_in(other))
  if differing:
    raise errors.DataError(
      f'{folder}: its class folders are not those of {other}:'
      f' {min(differing)!r} is in one only'
    )


def _images_in(folder: str, left_out: collections.Counter[str]) -> list[str]:
  """Returns the sorted names of a folder's images; counts other pictures."""
  names = []
  for name in sorted(tf.io.gfile.listdir(folder)):
    suffix = os.path.splitext(name)[1].lower()
    if suffix in _IMAGE_SUFFIXES:
      names.append(name)
    elif suffix in _OTHER_SUFFIXES:
      left_out[suffix] += 1
  return names


def _describe(counts: collections.Counter[str]) -> str:
  """Returns '3 .tiff, 1 .webp'."""
  return ', '.join(f'{counts[suffix]} {suffix}' for suffix in sorted(counts))


def source(
  folder: str,
  split: str,
  classes: list[str],
  num_classes: Optional[int],
  part: Optional[Part] = None,
) -> records.Source:
  """Returns the source made of `<folder>/<class>/<image>`.

  Pictures of formats that are not read are counted in a warning.

  Args:
    folder: of the split.
    split: its name, for messages.
    classes: `names_in(folder)`.
    num_classes: how many there have to be; None: any number.
    part: which of the images; None: all.

  Raises:
    DataError: a class is empty, or there are more or fewer than `num_classes`.
  """
  if num_classes is not None and len(classes) != num_classes:
    raise errors.DataError(
      f'{folder}: {len(classes)} class folders, data.num_classes says'
      f' {num_classes}'
    )
  left_out: collections.Counter[str] = collections.Counter()
  files: list[str] = []
  labels: list[int] = []
  for label, name in enumerate(classes):
    path = os.path.join(folder, name)
    found = _images_in(path, left_out)
    if not found:
      others = f' that is read ({_describe(left_out)})' if left_out else ''
      raise errors.DataError(f'{path}: the class folder holds no image{others}')
    if part is not None:
      found = part.of(path, name, found)
    files += [os.path.join(path, file) for file in found]
    labels += [label] * len(found)
  if left_out:
    logging.warning(
      '%s: %s files are left out; tools/build_tfrecords.py converts them',
      folder,
      _describe(left_out),
    )
  return records.Source(
    split,
    tuple(files),
    len(classes),
    len(files),
    counts=(1,) * len(files),
    labels=tuple(labels),
    first_label=0,
  )
