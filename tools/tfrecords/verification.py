"""Reads every record of a conversion, and compares it with the manifest."""

import collections
from collections.abc import Sequence
import glob
import os
from typing import Any, NamedTuple, Optional

import tensorflow as tf

from efficientnet_advprop.base import errors
from efficientnet_advprop.data import tfrecords
from tools.tfrecords import manifest as manifest_lib
from tools.tfrecords import workers

_STRINGS = (
  'image/encoded',
  'image/class/synset',
  'image/class/text',
  'image/filename',
  'image/format',
  'image/colorspace',
)
_INTEGERS = (
  'image/class/label',
  'image/height',
  'image/width',
  'image/channels',
)


class CheckTask(NamedTuple):
  """A shard to verify: its path, its number of records, the split's classes."""

  number: int
  path: str
  num_records: int
  classes: Sequence[str]


def verify(output_dir: str, num_workers: int) -> None:
  """Reads every record of a conversion, and compares the counts.

  Args:
    output_dir: the folder that was written.
    num_workers: the number of processes.

  Raises:
    DataError: something is wrong; every problem was printed, a line each.
    OSError: something cannot be read.
  """
  pattern = os.path.join(glob.escape(output_dir), f'*{manifest_lib.SUFFIX}')
  paths = sorted(glob.glob(pattern))
  if not paths:
    raise errors.DataError(f'{output_dir}: no data set of this converter')
  with open(os.path.join(output_dir, 'labels.txt'), encoding='utf-8') as file:
    classes = file.read().splitlines()
  problems = 0
  for path in paths:
    split = os.path.basename(path)[: -len(manifest_lib.SUFFIX)]
    manifest = manifest_lib.read(path)
    found = _verify_split(output_dir, split, manifest, classes, num_workers)
    for problem in found:
      print(problem)
    problems += len(found)
  if problems:
    raise errors.DataError(f'{output_dir}: {problems} problems, listed above')


def _verify_split(
  output_dir: str,
  split: str,
  manifest: dict[str, Any],
  classes: Sequence[str],
  num_workers: int,
) -> list[str]:
  """Prints what was read; returns the problems of a split, a line each."""
  count, shards = manifest['settings']['num_shards'], manifest['shards']
  tasks = [
    CheckTask(
      int(number),
      manifest_lib.shard_path(output_dir, split, int(number), count),
      shards[number]['written'],
      classes,
    )
    for number in sorted(shards, key=int)
  ]
  expected = collections.Counter(manifest['settings']['counts'])
  for shard in shards.values():
    expected.subtract(class_name for class_name, _, _ in shard['unreadable'])
  total = sum(task.num_records for task in tasks)
  found: collections.Counter[str] = collections.Counter()
  results = dict(workers.run(verify_shard, tasks, total, num_workers))
  problems = [p for n in sorted(results) for p in results[n]['problems']]
  for result in results.values():
    found.update(result['labels'])
  if len(tasks) < count:
    unfinished = f'{len(tasks)} of {count} shards are written; run it again'
    problems.append(f'{output_dir}: {split}: {unfinished}')
  elif not problems:  # A lost record would be missing in its class.
    problems += [
      f'{output_dir}: {split}: class {name!r}: {found[name]} records of'
      f' {expected[name]}'
      for name in classes
      if found[name] != expected[name]
    ]
  print(f'{split}: {sum(found.values())} records read')
  return problems


def verify_shard(task: CheckTask) -> dict[str, Any]:
  """Reads every record of a shard, its image in full.

  Returns:
    `problems`: a line for each, with file and record; `labels`: how many
    records of each class were read, by the class's name.
  """
  found: dict[str, int] = {}
  if not os.path.isfile(task.path):
    return {'problems': [f'{task.path}: missing'], 'labels': found}
  count, problem = tfrecords.count_records(task.path)
  problems = [problem] if problem else []
  if not problem and count != task.num_records:
    wrong = f'{count} records, {task.num_records} were written'
    problems.append(f'{task.path}: {wrong}')
  data = iter(tf.data.TFRecordDataset(task.path).take(count))
  for number in range(count):
    try:
      example = next(data).numpy()
    except tf.errors.OpError:  # The records after it cannot be read.
      lost = 'damaged (a flipped bit); the rest of the file was not read'
      problems.append(f'{task.path}: record {number}: {lost}')
      break
    problem = _problem(example, task.classes, found)
    if problem:
      problems.append(f'{task.path}: record {number}: {problem}')
    workers.count_image()
  return {'problems': problems, 'labels': found}


def _problem(
  example: bytes, classes: Sequence[str], found: dict[str, int]
) -> Optional[str]:
  """Returns what is wrong with a record; counts its class if it has one."""
  schema = {key: tf.io.FixedLenFeature([], tf.string) for key in _STRINGS}
  for key in _INTEGERS:
    schema[key] = tf.io.FixedLenFeature([], tf.int64)
  try:
    parsed = tf.io.parse_single_example(example, schema)
  except tf.errors.OpError:
    return 'not a tf.Example of the schema'
  values = {key: value.numpy() for key, value in parsed.items()}
  label = values['image/class/label']
  if not 1 <= label <= len(classes):
    return f'the label {label} is not in 1..{len(classes)}'
  name = classes[label - 1]
  found[name] = found.get(name, 0) + 1
  synset = os.fsdecode(values['image/class/synset'])
  if synset != name:
    return f'the label {label} is of {name!r}, the synset is {synset!r}'
  if values['image/format'] != b'JPEG' or values['image/colorspace'] != b'RGB':
    return 'format or colorspace is not that of an RGB JPEG'
  encoded = values['image/encoded']
  if not tf.io.is_jpeg(encoded):
    return 'the image is not a JPEG'
  try:
    shape = tf.io.decode_jpeg(encoded).shape
  except tf.errors.OpError:
    return f'the image cannot be decoded ({len(encoded)} bytes)'
  sides = ('image/height', 'image/width', 'image/channels')
  stated = tuple(int(values[key]) for key in sides)
  if tuple(shape) != stated:
    return f'the image is {tuple(shape)}, the features say {stated}'
  return None
