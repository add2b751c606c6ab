"""Where a split's images are: TFRecords, class folders, TensorFlow Datasets.

A split is found once, here: its files are listed and counted, and the number of
images is compared with the expected one. What is found, a `records.Source`, is
handed on to whatever reads it.
"""

import dataclasses
import os
from typing import Any, Optional

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import paths
from efficientnet_advprop.data import class_folders
from efficientnet_advprop.data import records
from efficientnet_advprop.data import shards
from efficientnet_advprop.data import tfds_splits

MINIVAL = 'minival'

# Names of the classes, one a line, in the folder of the data.
_LABELS_FILE = 'labels.txt'


class MissingSplitError(errors.DataError):
  """There is nothing of a split."""


def data_dir(config: config_lib.DataConfig) -> str:
  """Returns the folder of images: `data.dir`, or the embedded data set's."""
  return config.dir or os.path.normpath(paths.embedded_data())


def find(config: config_lib.DataConfig, split: str) -> records.Source:
  """Finds the files of a split of a run's data.

  The training split lacks the shards held out by `data.minival_shards`; the
  split `minival` is made of them. The numbers of images of the training and
  the evaluation split are compared with the configured ones.

  Raises:
    ConfigError: `data.minival_shards` holds out too much.
    DataError: there are no files, some are missing, or their number of images
      is not the configured one; one line says which.
  """
  if config.minival_shards and split in (MINIVAL, config.train_split):
    whole = _locate(config, config.train_split)
    part = _hold_out(whole, config.minival_shards, split)
  else:
    whole = part = _locate(config, split)
  if split == config.train_split:
    sizes = whole.size, part.size
    return _checked(config, whole, part, sizes, 'num_train_images')
  if split == config.eval_split and split != MINIVAL:
    return _checked(config, whole, part, (part.size,), 'num_eval_images')
  return _sized(config, part, None)


def find_set(
  config: config_lib.DataConfig, split: str, expected: Optional[int] = None
) -> records.Source:
  """Finds images of `data.dir` that need not be a split of the run's data.

  Args:
    config: folder and number of classes; its numbers of images do not count.
    split: the name of the files.
    expected: how many images there have to be; None: any number above 0.

  Raises:
    DataError: there are no files, some are missing, or their number of images
      is not the expected one; one line says which.
  """
  config = dataclasses.replace(config, validation_fraction=0)
  source = _sized(config, _locate(config, split), expected)
  if expected not in (None, source.size):
    place = os.path.dirname(source.files[0])
    if source.labels is not None:
      place = os.path.dirname(place)
    raise errors.DataError(
      f'{place}: the set {split!r} holds {source.size} images, not {expected}'
    )
  return source


def resolved(config: config_lib.Config) -> config_lib.Config:
  """Returns a run with the numbers that it leaves to the data.

  These are `data.num_classes`, `data.num_train_images` and
  `data.num_eval_images`. The number of images of a split that is not there
  stays None.

  Raises:
    ConfigError: a number is neither given nor known without reading large or
      remote files; or what is there does not go with other settings.
    DataError: the data are not there, are damaged, or are not as given.
  """
  data = config.data
  missing: Optional[MissingSplitError] = None
  for key, split in (
    ('num_train_images', data.train_split),
    ('num_eval_images', data.eval_split),
  ):
    if getattr(data, key) is None:
      try:
        source = find(data, split)
      except MissingSplitError as error:
        missing = missing or error
        continue
      changes: dict[str, Any] = {key: source.size}
      data = dataclasses.replace(
        data, num_classes=source.num_classes, **changes
      )
  if data.num_classes is None:
    if missing is not None:
      raise missing
    source = find(data, data.train_split)
    data = dataclasses.replace(data, num_classes=source.num_classes)
  return dataclasses.replace(config, data=data)


def with_cue(source: records.Source, cue: str) -> records.Source:
  """Returns the same source, read with the class that a cue points to.

  Raises:
    DataError: its images are files, which have no second class.
  """
  key = f'image/{cue}/label'
  if source.labels is not None:
    raise errors.DataError(
      f'{source.files[0]}: has no {key}; only TFRecords can name a cue'
    )
  return dataclasses.replace(source, cue_key=key)


def label_names(config: config_lib.DataConfig) -> Optional[list[str]]:
  """Returns the names of the classes in the order of their labels.

  They are the lines of `labels.txt` in the data's folder, or the names of the
  class folders, or those of TensorFlow Datasets; None if there are none.

  Raises:
    DataError: the set of TensorFlow Datasets cannot be used.
  """
  directory = data_dir(config)
  if tfds_splits.is_tfds(directory):
    return tfds_splits.label_names(tfds_splits.parse(directory)[0])
  path = os.path.join(directory, _LABELS_FILE)
  if tf.io.gfile.exists(path):
    with tf.io.gfile.GFile(path) as file:
      return file.read().splitlines()
  folder = os.path.join(directory, config.eval_split)
  if not tf.io.gfile.isdir(folder) and config.validation_fraction:
    folder = _divided_folder(config)
  if tf.io.gfile.isdir(folder):
    return class_folders.names_in(folder)
  return None


def num_classes(config: config_lib.DataConfig) -> Optional[int]:
  """Returns how many classes the data have, if no image must be read for it.

  Raises:
    DataError: the set of TensorFlow Datasets cannot be used.
  """
  names = label_names(config)
  return None if names is None else len(names)


def _locate(config: config_lib.DataConfig, split: str) -> records.Source:
  """Finds the files of a split, whatever the number of images."""
  directory = data_dir(config)
  if tfds_splits.is_tfds(directory):
    return _locate_tfds(config, split)
  if not tf.io.gfile.isdir(directory):
    raise errors.DataError(f'{directory}: no such folder (data.dir)')
  files = sorted(tf.io.gfile.listdir(directory))
  names = shards.names_of(directory, files, split)
  if names:
    files = [os.path.join(directory, name) for name in names]
    source = shards.source(
      split, files, config.num_classes or 0, config.max_bad_records
    )
    if config.num_classes is None:
      found = num_classes(config) or _num_classes_of(source)
      source = dataclasses.replace(source, num_classes=found)
    return source
  folder = os.path.join(directory, split)
  if config.validation_fraction and split in (
    config.train_split,
    config.eval_split,
  ):
    return _locate_part(config, split)
  if tf.io.gfile.isdir(folder):
    classes = class_folders.names_in(folder)
    train = os.path.join(directory, config.train_split)
    if split != config.train_split and tf.io.gfile.isdir(train):
      class_folders.check_same(folder, train, classes)
    return class_folders.source(folder, split, classes, config.num_classes)
  raise MissingSplitError(
    f'{directory}: no images of the split {split!r}: neither'
    f' {split}-?????-of-????? nor {split}*.tfrecord* nor a folder {split}'
    f'{_hint(directory, config)}'
  )


def _hint(directory: str, config: config_lib.DataConfig) -> str:
  """Returns what to try with a folder that seems to hold class folders."""
  names = class_folders.names_in(directory)
  if config.train_split in names or len(names) < 2:
    shown = ', '.join(names)
    return f' (there are folders {shown})' if names else ''
  return '; a folder of class folders needs data.validation_fraction'


def _divided_folder(config: config_lib.DataConfig) -> str:
  """Returns the folder of class folders that `validation_fraction` divides."""
  directory = data_dir(config)
  train = os.path.join(directory, config.train_split)
  return train if tf.io.gfile.isdir(train) else directory


def _locate_part(config: config_lib.DataConfig, split: str) -> records.Source:
  folder = _divided_folder(config)
  held_out = os.path.join(data_dir(config), config.eval_split)
  if tf.io.gfile.isdir(held_out):
    allowed = f'0, as there is a split of its own for evaluation: {held_out}'
    raise config_lib.ConfigError(
      'data.validation_fraction', config.validation_fraction, allowed
    )
  part = class_folders.Part(
    config.validation_fraction,
    config.validation_seed,
    split == config.eval_split,
  )
  classes = class_folders.names_in(folder)
  return class_folders.source(folder, split, classes, config.num_classes, part)


def _num_classes_of(source: records.Source) -> int:
  """Returns the highest label of local TFRecords that may be read whole."""
  if source.counts is None or source.sizes:
    place = os.path.dirname(source.files[0])
    allowed = f'a number, as {place} has no {_LABELS_FILE}'
    raise config_lib.ConfigError('data.num_classes', None, allowed)
  return shards.highest_label(source.files)


def _locate_tfds(config: config_lib.DataConfig, split: str) -> records.Source:
  name, named_split = tfds_splits.parse(config.dir)
  if named_split is not None and split == config.eval_split:
    split = named_split
  elif named_split is not None and split == config.train_split:
    raise errors.DataError(
      f'{config.dir}: names the split to evaluate; to train, leave it out and'
      ' set data.train_split and data.eval_split'
    )
  return tfds_splits.source(name, split, config.num_classes)


def _hold_out(source: records.Source, count: int, split: str) -> records.Source:
  num_shards = 0 if source.labels is not None else len(source.files)
  if count >= num_shards:
    allowed = f'less than the {num_shards} TFRecord shards of {source.name}'
    raise config_lib.ConfigError('data.minival_shards', count, allowed)
  part = shards.hold_out(source, count, split == MINIVAL)
  return dataclasses.replace(part, name=split)


def _checked(
  config: config_lib.DataConfig,
  whole: records.Source,
  part: records.Source,
  sizes: tuple[int, ...],
  key: str,
) -> records.Source:
  """Returns `part`, if the number of images is the configured one.

  Args:
    config: of the data.
    whole: the split with what is held out.
    part: the split.
    sizes: the numbers that the configuration may name.
    key: of the number in the configuration.
  """
  expected = getattr(config, key)
  if expected is None and part.counts is None:
    allowed = 'a number, as large or remote files are not counted beforehand'
    raise config_lib.ConfigError(f'data.{key}', None, allowed)
  if part.counts is not None and expected not in (None, *sizes):
    message = (
      f'{data_dir(config)}: the split {whole.name!r} holds {whole.size} images,'
      f' data.{key} says {expected}'
    )
    missing = expected - whole.size
    short = shards.short_file(whole) if missing > 0 else None
    if short is not None:
      message += f'; {short} (cut short?)'
    if not 0 < missing <= config.max_bad_records:
      raise errors.DataError(message)
    logging.warning('%s; continuing without them', message)
  return _sized(config, part, expected)


def _sized(
  config: config_lib.DataConfig,
  source: records.Source,
  expected: Optional[int],
) -> records.Source:
  """Returns the source with its size; one that is not counted needs it."""
  if source.counts is None:
    size = expected or shards.count_by_reading(source)
    source = dataclasses.replace(source, size=size)
  if not source.size:
    raise errors.DataError(
      f'{data_dir(config)}: the split {source.name!r} holds no images'
    )
  return source
