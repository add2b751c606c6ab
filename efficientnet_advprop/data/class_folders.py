"""Images in folders named after their classes."""

import os
from typing import Optional

import tensorflow as tf

from efficientnet_advprop.base import errors
from efficientnet_advprop.data import records

_IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')


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


def source(
  folder: str, split: str, classes: list[str], num_classes: Optional[int]
) -> records.Source:
  """Returns the source made of `<folder>/<class>/<image>`.

  Args:
    folder: of the split.
    split: its name, for messages.
    classes: `names_in(folder)`.
    num_classes: how many there have to be; None: any number.

  Raises:
    DataError: a class is empty, or there are more or fewer than `num_classes`.
  """
  if num_classes is not None and len(classes) != num_classes:
    raise errors.DataError(
      f'{folder}: {len(classes)} class folders, data.num_classes says'
      f' {num_classes}'
    )
  files: list[str] = []
  labels: list[int] = []
  for label, name in enumerate(classes):
    path = os.path.join(folder, name)
    found = [
      os.path.join(path, file)
      for file in sorted(tf.io.gfile.listdir(path))
      if file.lower().endswith(_IMAGE_SUFFIXES)
    ]
    if not found:
      raise errors.DataError(f'{path}: the class folder holds no image')
    files += found
    labels += [label] * len(found)
  return records.Source(
    split,
    tuple(files),
    len(classes),
    len(files),
    counts=(1,) * len(files),
    labels=tuple(labels),
    first_label=0,
  )
