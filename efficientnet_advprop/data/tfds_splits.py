"""Splits that TensorFlow Datasets prepared on this machine."""

import re
import textwrap
from typing import Any, Optional

import tensorflow as tf

from efficientnet_advprop.base import errors
from efficientnet_advprop.config import fields
from efficientnet_advprop.data import records

PREFIX = 'tfds:'

# Name, perhaps a version, perhaps a split.
_SOURCE = re.compile(rf'{PREFIX}([^:]*(?::[\d*]+\.[\d*]+\.[\d*]+)?)(?::(.*))?')


def is_tfds(directory: str) -> bool:
  """Returns whether `data.dir` names a set of TensorFlow Datasets."""
  return directory.startswith(PREFIX)


def parse(directory: str) -> tuple[str, Optional[str]]:
  """Splits `tfds:<name>[:<split>]` into the builder's name and the split."""
  match = _SOURCE.fullmatch(directory)
  assert match  # It matches whatever follows the prefix.
  name, split = match.groups()
  return name, split


def _info(name: str) -> Any:
  try:
    import tensorflow_datasets as tfds  # Slow to import, and optional.
  except ImportError:
    reason = 'needs the package tensorflow-datasets'
    raise errors.DataError(f'{PREFIX}{name}: {reason}') from None
  try:
    info = tfds.builder(name).info
  except (ValueError, AssertionError) as error:  # The latter: a wrong version.
    lines = filter(None, map(str.strip, str(error).splitlines()))
    # Some list hundreds of names.
    reason = textwrap.shorten(next(lines, 'unknown'), 160, placeholder=' ...')
    raise errors.DataError(f'{PREFIX}{name}: {reason}') from None
  if not info.splits:
    raise errors.DataError(
      f'{PREFIX}{name}: not prepared on this machine; run `tfds build {name}`'
    )
  missing = {'image', 'label'} - set(info.features or ())
  if missing:
    raise errors.DataError(f'{PREFIX}{name}: has no feature {min(missing)!r}')
  return info


def source(name: str, split: str, num_classes: Optional[int]) -> records.Source:
  """Returns the TFRecord files of a split of TensorFlow Datasets.

  Args:
    name: of the builder, perhaps with a configuration and a version.
    split: its name, or a part of it such as `train[:90%]`.
    num_classes: None: as many as the set has.

  Raises:
    DataError: the package, the set, the split or a file is missing.
  """
  info = _info(name)
  where = f'{PREFIX}{name}'
  if info.file_format.value != 'tfrecord':
    raise errors.DataError(
      f'{where}: stored as {info.file_format.value}; prepare it as tfrecord'
    )
  try:
    parts = info.splits[split].file_instructions
  except (KeyError, ValueError):
    known = fields.nearest(split, info.splits)
    raise errors.DataError(
      f'{where}: no split {split!r}; there are {known}'
    ) from None
  lost = [p.filename for p in parts if not tf.io.gfile.exists(p.filename)]
  if lost:
    raise errors.DataError(f'{lost[0]}: missing ({where})')
  counts = tuple(
    part.examples_in_shard if part.take < 0 else part.take for part in parts
  )
  return records.Source(
    split,
    tuple(part.filename for part in parts),
    num_classes or info.features['label'].num_classes,
    sum(counts),
    skips=tuple(part.skip for part in parts),
    counts=counts,
    first_label=0,
    image_key='image',
    label_key='label',
  )


def label_names(name: str) -> list[str]:
  """Returns the names of the classes of a set, in the order of labels.

  Raises:
    DataError: the package or the set is missing.
  """
  return list(_info(name).features['label'].names)
