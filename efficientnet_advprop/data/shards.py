"""The TFRecord shards of a split: their names, and how many records they hold.

Local shards up to 16 GiB are counted by their headers. For larger and remote
ones (a path with `://`) the manifest that tools/build_tfrecords.py writes next
to them gives the counts, provided that the files have the sizes that it states.
Without a manifest the records are counted while they are read.
"""

import collections
from collections.abc import Sequence
import concurrent.futures
import json
import os
import re
from typing import Optional

from absl import logging
import tensorflow as tf

from efficientnet_advprop.base import errors
from efficientnet_advprop.data import records
from efficientnet_advprop.data import tfrecords

# <split> and this: a JSON file of what each shard of the split holds.
MANIFEST_SUFFIX = '.manifest.json'

_COUNTED_BYTES = 16 << 30
_LABEL_KEY = 'image/class/label'


def names_of(directory: str, names: Sequence[str], split: str) -> list[str]:
  """Picks the TFRecord files of a split among the files of a folder.

  Args:
    directory: for messages.
    names: of the files, sorted.
    split: `<split>-?????-of-?????`, or else `<split>*.tfrecord*`.

  Raises:
    DataError: a shard is missing, or there are shards of two sets.
  """
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


def source(
  split: str, paths: Sequence[str], num_classes: int, max_bad_records: int
) -> records.Source:
  """Returns the source made of TFRecord files, counted if that is quick.

  Args:
    split: for messages, and for the name of the manifest.
    paths: of the files.
    num_classes: how many labels there are.
    max_bad_records: with how many lost records damaged files are accepted.

  Returns:
    The source; its size is 0 where `counts` is None.

  Raises:
    DataError: a file is damaged, or the manifest is not of these files.
  """
  remote = '://' in paths[0]
  sizes: tuple[int, ...] = ()
  counts: Optional[tuple[int, ...]]
  with concurrent.futures.ThreadPoolExecutor(16) as threads:
    bytes_of = tuple(threads.map(lambda p: tf.io.gfile.stat(p).length, paths))
    if remote or sum(bytes_of) > _COUNTED_BYTES:
      sizes = bytes_of
      counts = _counts_of_manifest(split, paths, sizes, max_bad_records)
    else:
      results = list(threads.map(tfrecords.count_records, paths))
      problems = [problem for _, problem in results if problem]
      # How many records the damage hides is unknown: at least one each.
      if len(problems) > max_bad_records:
        raise errors.DataError(problems[0])
      for problem in problems:
        logging.warning('%s; reading without the rest of the file', problem)
      counts = tuple(count for count, _ in results)
  return records.Source(
    split,
    tuple(paths),
    num_classes,
    sum(counts or ()),
    counts=counts,
    sizes=sizes,
  )


def _counts_of_manifest(
  split: str, paths: Sequence[str], sizes: Sequence[int], max_bad_records: int
) -> Optional[tuple[int, ...]]:
  """Returns the records in each file by the manifest; None without one."""
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
      if not max_bad_records:
        raise errors.DataError(problem)
      logging.warning('%s; what is missing counts as bad records', problem)
  return tuple(stated[number][1] for number in range(len(paths)))


def count_by_reading(source: records.Source) -> int:
  """Returns how many records the files hold, which takes reading them all."""
  logging.info(
    '%s: counting the records of %d files', source.name, len(source.files)
  )
  return sum(
    int(tf.size(batch))
    for batch in tf.data.TFRecordDataset(source.files).batch(1024)
  )


def highest_label(paths: Sequence[str]) -> int:
  """Returns the highest label of TFRecords, which takes reading them all.

  Records that are damaged or have no label are passed over.

  Raises:
    DataError: no record has a label.
  """
  folder = os.path.dirname(paths[0])
  logging.info('%s: reading the labels to count the classes', folder)
  feature = {_LABEL_KEY: tf.io.FixedLenFeature([], tf.int64, 0)}

  def highest(examples: tf.Tensor) -> tf.Tensor:
    labels = tf.io.parse_example(examples, feature)[_LABEL_KEY]
    return tf.reduce_max(labels)

  examples = tf.data.TFRecordDataset(list(paths)).ignore_errors().batch(1024)
  found = examples.map(highest, tf.data.AUTOTUNE).ignore_errors()
  label = max(map(int, found.as_numpy_iterator()), default=0)
  if not label:
    raise errors.DataError(
      f'{folder}: no record has a label; give data.num_classes'
    )
  return label


def short_file(source: records.Source) -> Optional[str]:
  """Describes the one shard that holds fewer records than all the others."""
  counts = source.counts or ()
  (usual, frequency), *_ = collections.Counter(counts).most_common(1)
  short = [i for i, count in enumerate(counts) if count < usual - 1]
  if source.labels is not None or len(short) != 1 or frequency < 2:
    return None
  name = os.path.basename(source.files[short[0]])
  return f'{name} holds {counts[short[0]]}, others {usual}'


def hold_out(source: records.Source, count: int, first: bool) -> records.Source:
  """Returns the first `count` shards of a training set, or the others."""
  part = slice(count) if first else slice(count, None)
  counts = None if source.counts is None else source.counts[part]
  return records.Source(
    source.name,
    source.files[part],
    source.num_classes,
    sum(counts or ()),
    counts=counts,
    sizes=source.sizes[part],
  )
