"""Where a split's images are: TFRecords, class folders, TensorFlow Datasets.

How many there are is checked against the configuration. Local TFRecords up to
16 GiB are counted by their headers before anything else happens. Of larger and
remote ones (a path with `://`) the manifest of tools/build_tfrecords.py tells
the counts, if it lies beside them and the sizes of the files are those that it
states. Others are counted while they are read: an epoch that ends early, or
does not end, is an error then.
"""

import collections
from collections.abc import Sequence
import concurrent.futures
import dataclasses
import json
import os
import re
import textwrap
from typing import Any, Optional

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import paths
from efficientnet_advprop.data import records

TFDS_PREFIX = 'tfds:'
MINIVAL = 'minival'
# <split> and this: a JSON file of what each shard of the split holds.
MANIFEST_SUFFIX = '.manifest.json'

# Name, perhaps a version, perhaps a split.
_TFDS_SOURCE = re.compile(
  rf'{TFDS_PREFIX}([^:]*(?::[\d*]+\.[\d*]+\.[\d*]+)?)(?::(.*))?'
)
_COUNTED_BYTES = 16 << 30
_IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')


def data_dir(config: config_lib.DataConfig) -> str:
  """The folder of images: `data.dir`, or the embedded data set's."""
  return config.dir or os.path.normpath(paths.embedded_data())


def find(config: config_lib.DataConfig, split: str) -> records.Source:
  """Finds the files of a split.

  The training split lacks the shards held out by `data.minival_shards`; the
  split `minival` is made of them.

  Raises:
    ConfigError: `data.minival_shards` holds out too much.
    DataError: there are no files, some are missing, or their number of images
      is not the configured one; one line says which.
  """
  held_out = config.minival_shards
  if held_out and split in (MINIVAL, config.train_split):
    whole = _find_whole(config, config.train_split)
    part = _hold_out(whole, held_out, split)
  else:
    whole = part = _find_whole(config, split)
  if part.counts is None:
    return part
  if split == config.train_split:
    allowed = (sum(whole.counts or ()), sum(part.counts))
    _check_count(config, whole, allowed, 'num_train_images')
  elif split == config.eval_split and split != MINIVAL:
    _check_count(config, whole, (sum(part.counts),), 'num_eval_images')
  if not sum(part.counts):
    raise errors.DataError(
      f'{data_dir(config)}: the split {split!r} holds no images'
    )
  return part


def with_cue(source: records.Source, cue: str) -> records.Source:
  """The same source, read with the class that a cue points to.

  Raises:
    DataError: its images are files, which have no second class.
  """
  key = f'image/{cue}/label'
  if source.labels is not None:
    raise errors.DataError(
      f'{source.files[0]}: has no {key}; only TFRecords can name a cue'
    )
  return dataclasses.replace(source, cue_key=key)


def _find_whole(config: config_lib.DataConfig, split: str) -> records.Source:
  directory = data_dir(config)
  if directory.startswith(TFDS_PREFIX):
    return _find_tfds(config, split)
  if not tf.io.gfile.isdir(directory):
    raise errors.DataError(f'{directory}: no such folder (data.dir)')
  names = tf.io.gfile.listdir(directory)
  shards = _shard_names(directory, sorted(names), split)
  if shards:
    paths = [os.path.join(directory, name) for name in shards]
    return _count(split, paths, config)
  if tf.io.gfile.isdir(os.path.join(directory, split)):
    return _find_images(config, directory, split)
  raise errors.DataError(
    f'{directory}: no images of the split {split!r}: neither'
    f' {split}-?????-of-????? nor {split}*.tfrecord* nor a folder {split}'
  )


def _hold_out(source: records.Source, count: int, split: str) -> records.Source:
  """The first `count` shards of a training set, or the others."""
  if source.labels is not None or count >= len(source.files):
    shards = 0 if source.labels is not None else len(source.files)
    allowed = f'less than the {shards} TFRecord shards of {source.name}'
    raise config_lib.ConfigError('data.minival_shards', count, allowed)
  part = slice(count) if split == MINIVAL else slice(count, None)
  counts = None if source.counts is None else source.counts[part]
  return source.__class__(
    **{
      **source.__dict__,
      'name': split,
      'files': source.files[part],
      'skips': source.skips[part],
      'counts': counts,
      'sizes': source.sizes[part],
    }
  )


# --- TFRecords --------------------------------------------------------------


def _shard_names(directory: str, names: Sequence[str], split: str) -> list[str]:
  """The TFRecord files of a split, none of its shards missing."""
  pattern = re.compile(re.escape(split) + r'-(\d{5})-of-(\d{5})')
  matches = [match for match in map(pattern.fullmatch, names) if match]
  if not matches:
    prefix = re.compile(re.escape(split) + r'.*\.tfrecord.*')
    return [name for name in names if prefix.fullmatch(name)]
  totals = sorted({match.group(2) for match in matches})
  if len(totals) > 1:
    raise errors.DataError(
      f'{directory}: shards of different sets of {split!r}:'
      f' -of-{totals[0]} and -of-{totals[1]}'
    )
  present = {int(match.group(1)) for match in matches}
  missing = sorted(set(range(int(totals[0]))) - present)
  if missing:
    raise errors.DataError(
      f'{directory}: {split}-{missing[0]:05d}-of-{totals[0]} is missing'
      f' ({len(present)} of {int(totals[0])} shards are there)'
    )
  return [match.group() for match in matches]


def _count(
  split: str, paths: Sequence[str], config: config_lib.DataConfig
) -> records.Source:
  """The source made of TFRecord files, counted if that is quick."""
  remote = '://' in paths[0]
  with concurrent.futures.ThreadPoolExecutor(16) as threads:
    sizes = tuple(threads.map(lambda p: tf.io.gfile.stat(p).length, paths))
    if remote or sum(sizes) > _COUNTED_BYTES:
      counts = _counts_of_manifest(split, paths, sizes, config)
      return records.Source(
        split, tuple(paths), config.num_classes, counts=counts, sizes=sizes
      )
    results = list(threads.map(records.count_records, paths))
  problems = [problem for _, problem in results if problem]
  if problems:
    # What the damage hides is unknown: at least the one record.
    if len(problems) > config.max_bad_records:
      raise errors.DataError(problems[0])
    for problem in problems:
      logging.warning('%s; reading without the rest of the file', problem)
  counts = tuple(count for count, _ in results)
  return records.Source(split, tuple(paths), config.num_classes, counts=counts)


def _counts_of_manifest(
  split: str,
  paths: Sequence[str],
  sizes: Sequence[int],
  config: config_lib.DataConfig,
) -> Optional[tuple[int, ...]]:
  """The records in each file, as the manifest states; None without one."""
  path = os.path.join(os.path.dirname(paths[0]), split + MANIFEST_SUFFIX)
  if not tf.io.gfile.exists(path):
    return None
  try:
    with tf.io.gfile.GFile(path) as file:
      shards = json.load(file)['shards']
    stated = {int(n): (s['bytes'], s['written']) for n, s in shards.items()}
  except (ValueError, KeyError, TypeError, AttributeError):
    raise errors.DataError(f'{path}: damaged') from None
  if sorted(stated) != list(range(len(paths))):
    raise errors.DataError(
      f'{path}: {len(stated)} of {len(paths)} shards are written; run'
      ' tools/build_tfrecords.py again'
    )
  for number, (file_path, size) in enumerate(zip(paths, sizes)):
    if size != stated[number][0]:
      problem = f'{file_path}: {size} bytes, its manifest says'
      problem += f' {stated[number][0]} (cut short?)'
      if not config.max_bad_records:
        raise errors.DataError(problem)
      logging.warning('%s; what is missing counts as bad records', problem)
  return tuple(stated[number][1] for number in range(len(paths)))


def _check_count(
  config: config_lib.DataConfig,
  source: records.Source,
  allowed: Sequence[int],
  key: str,
) -> None:
  """Compares the number of images with the configured one."""
  expected, found = getattr(config, key), sum(source.counts or ())
  if expected in allowed:
    return
  message = (
    f'{data_dir(config)}: the split {source.name!r} holds {found} images,'
    f' data.{key} says {expected}'
  )
  short = _short_file(source) if found < expected else None
  if short is not None:
    message += f'; {short} (cut short?)'
  if 0 < expected - found <= config.max_bad_records:
    logging.warning('%s; going on without them', message)
    return
  raise errors.DataError(message)


def _short_file(source: records.Source) -> Optional[str]:
  """The one shard that holds fewer records than all the others, in words."""
  counts = source.counts or ()
  (usual, frequency), *_ = collections.Counter(counts).most_common(1)
  short = [i for i, count in enumerate(counts) if count < usual - 1]
  if source.labels is not None or len(short) != 1 or frequency < 2:
    return None
  name = os.path.basename(source.files[short[0]])
  return f'{name} holds {counts[short[0]]}, others {usual}'


# --- Class folders ----------------------------------------------------------


def class_names(directory: str) -> list[str]:
  """The folders in a folder, sorted; the first is the first class."""
  # Remote listings end the names of folders in a slash.
  names = sorted(n.rstrip('/') for n in tf.io.gfile.listdir(directory))
  return [
    name
    for name in names
    if not name.startswith('.')
    and tf.io.gfile.isdir(os.path.join(directory, name))
  ]


def _find_images(
  config: config_lib.DataConfig, directory: str, split: str
) -> records.Source:
  """The source made of `<directory>/<split>/<class>/<image>`."""
  folder = os.path.join(directory, split)
  classes = class_names(folder)
  train = os.path.join(directory, config.train_split)
  if split != config.train_split and tf.io.gfile.isdir(train):
    differing = set(classes) ^ set(class_names(train))
    if differing:
      raise errors.DataError(
        f'{folder}: its class folders are not those of {train}:'
        f' {min(differing)!r} is in one only'
      )
  if len(classes) != config.num_classes:
    raise errors.DataError(
      f'{folder}: {len(classes)} class folders, data.num_classes says'
      f' {config.num_classes}'
    )
  by_class: dict[str, list[str]] = {}
  for name in classes:
    path = os.path.join(folder, name)
    by_class[name] = [
      os.path.join(path, file)
      for file in sorted(tf.io.gfile.listdir(path))
      if file.lower().endswith(_IMAGE_SUFFIXES)
    ]
    if not by_class[name]:
      raise errors.DataError(f'{path}: the class folder holds no image')
  files = tuple(file for name in classes for file in by_class[name])
  labels = [i for i, name in enumerate(classes) for _ in by_class[name]]
  return records.Source(
      split, files, config.num_classes, counts=(1,) * len(files),
      labels=tuple(labels), first_label=0,
  )  # fmt: skip


# --- TensorFlow Datasets ----------------------------------------------------


def _find_tfds(config: config_lib.DataConfig, split: str) -> records.Source:
  """The source made of the TFRecord files that TensorFlow Datasets wrote."""
  match = _TFDS_SOURCE.fullmatch(config.dir)
  assert match  # It matches whatever follows the prefix.
  name, named_split = match.groups()
  if named_split is not None and split == config.eval_split:
    split = named_split
  elif named_split is not None and split == config.train_split:
    raise errors.DataError(
      f'{config.dir}: names the split to evaluate; to train, leave it out and'
      ' set data.train_split and data.eval_split'
    )
  try:
    import tensorflow_datasets as tfds  # Slow to import, and optional.
  except ImportError:
    reason = 'needs the package tensorflow-datasets'
    raise errors.DataError(f'{TFDS_PREFIX}{name}: {reason}') from None
  try:
    info = tfds.builder(name).info
  except (ValueError, AssertionError) as error:  # The latter: a wrong version.
    lines = filter(None, map(str.strip, str(error).splitlines()))
    # Some list hundreds of names.
    reason = textwrap.shorten(next(lines, 'unknown'), 160, placeholder=' ...')
    raise errors.DataError(f'{TFDS_PREFIX}{name}: {reason}') from None
  if not info.splits:
    raise errors.DataError(
      f'{TFDS_PREFIX}{name}: not prepared on this machine; run'
      f' `tfds build {name}`'
    )
  files, skips, counts = _tfds_files(name, info, split)
  return records.Source(
      split, files, config.num_classes, skips, counts,
      first_label=0, image_key='image', label_key='label',
  )  # fmt: skip


def _tfds_files(
  name: str, info: Any, split: str
) -> tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]]:
  """The files, records to skip and records to read of a TFDS split."""
  where = f'{TFDS_PREFIX}{name}'
  missing = {'image', 'label'} - set(info.features or ())
  if missing:
    raise errors.DataError(f'{where}: has no feature {min(missing)!r}')
  if info.file_format.value != 'tfrecord':
    raise errors.DataError(
      f'{where}: stored as {info.file_format.value}; prepare it as tfrecord'
    )
  try:
    parts = info.splits[split].file_instructions
  except (KeyError, ValueError):
    known = config_lib.nearest(split, info.splits)
    raise errors.DataError(
      f'{where}: no split {split!r}; there are {known}'
    ) from None
  lost = [p.filename for p in parts if not tf.io.gfile.exists(p.filename)]
  if lost:
    raise errors.DataError(f'{lost[0]}: missing ({where})')
  return (
      tuple(part.filename for part in parts),
      tuple(part.skip for part in parts),
      tuple(part.examples_in_shard if part.take < 0 else part.take
            for part in parts),
  )  # fmt: skip
