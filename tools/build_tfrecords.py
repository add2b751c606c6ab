r"""Writes images as TFRecords in the schema of the official ImageNet script.

An input is a folder of class folders or one of ImageNet's official tar files,
which need not be extracted. Classes are shuffled into each other. A run that
was killed goes on where it was when it is started again.

  .venv/bin/python tools/build_tfrecords.py --output_dir=<TFRecords> \
      --input=train=ILSVRC2012_img_train.tar \
      --input=validation=ILSVRC2012_img_val.tar \
      --labels_file=imagenet_2012_validation_synset_labels.txt
  .venv/bin/python tools/build_tfrecords.py --output_dir=<TFRecords> --verify
"""

import collections
from collections.abc import Sequence
import concurrent.futures.process
import functools
import glob
import os
import re
import sys
from typing import Any, Callable, Optional

from absl import app
from absl import flags
from absl import logging
import numpy as np
import PIL

if not __package__:  # Run as a file: let it find its neighbors all the same.
  sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..'))
# What TensorFlow says of GPUs, and of damaged images, would hide our lines.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import program
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import files
from efficientnet_advprop.base import locks
from tools.tfrecords import image_listing
from tools.tfrecords import manifest as manifest_lib
from tools.tfrecords import shards as shards_lib

# As the official script divides ImageNet; smaller sets get fewer shards.
_MAX_SHARDS = {'train': 1024}
_MAX_OTHER_SHARDS = 128
_IMAGES_PER_SHARD = 250


# --- Converting -------------------------------------------------------------


def convert(
  output_dir: str,
  inputs: dict[str, str],
  num_shards: dict[str, int],
  labels_file: Optional[str],
  seed: int,
  num_workers: int,
  max_unreadable: int,
) -> None:
  """Writes the shards of all splits, and labels.txt; see the flags.

  Raises:
    ConfigError: more shards than images.
    DataError: an input cannot be used, the folder holds other data, or more
      files than `max_unreadable` are unreadable.
    OSError: something cannot be read or written.
  """
  images = {
    split: image_listing.find_images(path, labels_file)
    for split, path in inputs.items()
  }
  num_shards = {
    split: num_shards.get(split) or _default_shards(split, len(listed))
    for split, listed in images.items()
  }
  for split, listed in images.items():
    if num_shards[split] > len(listed):
      allowed = f'at most the {len(listed)} images of {split}'
      raise config_lib.ConfigError('num_shards', num_shards[split], allowed)
  os.makedirs(output_dir, exist_ok=True)
  with locks.locked(output_dir):
    _write_labels(output_dir, inputs, images)
    manifests = {
      split: _convert_split(
        output_dir, split, listed, num_shards[split], seed, num_workers
      )
      for split, listed in images.items()
    }
    unreadable = sum(map(_report, manifests, manifests.values()))
    if unreadable > max_unreadable:
      for split, manifest in manifests.items():
        _drop_incomplete(output_dir, split, manifest)
      raise errors.DataError(
        f'{unreadable} unreadable files, --max_unreadable={max_unreadable};'
        ' their shards were deleted; repair the files listed above, or allow'
        ' them, and run again'
      )


def _default_shards(split: str, num_images: int) -> int:
  """Returns how many shards a split gets if nobody says it."""
  most = _MAX_SHARDS.get(split, _MAX_OTHER_SHARDS)
  return min(max(num_images // _IMAGES_PER_SHARD, 1), most)


def _write_labels(
  output_dir: str,
  inputs: dict[str, str],
  images: dict[str, list[image_listing.Image]],
) -> None:
  """Writes the names of the classes, the same in all splits."""
  path = os.path.join(output_dir, 'labels.txt')
  expected: Optional[list[str]] = None
  if os.path.exists(path):
    with open(path, encoding='utf-8') as file:
      expected, where = file.read().splitlines(), path
  for split, listed in images.items():
    names = image_listing.class_names(listed)
    if expected is None:
      expected, where = names, inputs[split]
    differing = set(names) ^ set(expected)
    if differing:
      raise errors.DataError(
        f'{inputs[split]}: its classes are not those of {where}:'
        f' {min(differing)!r} is in one only'
      )
  files.write(path, ''.join(f'{name}\n' for name in expected or ()))


def _convert_split(
  output_dir: str,
  split: str,
  images: Sequence[image_listing.Image],
  num_shards: int,
  seed: int,
  num_workers: int,
) -> dict[str, Any]:
  """Writes the shards of a split that are not there; returns its manifest."""
  settings = {
    'seed': seed,
    'num_shards': num_shards,
    'images': image_listing.list_hash(images),
    'pillow': PIL.__version__,  # Others may write repaired images otherwise.
    'counts': dict(collections.Counter(i.class_name for i in images)),
  }
  manifest = manifest_lib.resume(output_dir, split, settings)
  for unfinished in glob.glob(
    os.path.join(glob.escape(output_dir), f'.{split}-?????-of-?????.tmp')
  ):
    os.remove(unfinished)
  order = np.random.default_rng(seed).permutation(len(images))
  classes = image_listing.class_names(images)
  tasks = [
    shards_lib.ShardTask(
      number,
      manifest_lib.shard_path(output_dir, split, number, num_shards),
      [images[i] for i in members],
      classes,
    )
    for number, members in enumerate(_parts(order, num_shards))
    if str(number) not in manifest['shards']
  ]
  left = sum(len(task.images) for task in tasks)
  logging.info(
    '%s: %d images of %d classes; %d of %d shards to write',
    *(split, len(images), len(classes), len(tasks), num_shards),
  )
  path = os.path.join(output_dir, split + manifest_lib.SUFFIX)
  if tasks:
    done = shards_lib.run(shards_lib.write_shard, tasks, left, num_workers)
    for number, result in done:
      manifest['shards'][str(number)] = result
      manifest_lib.write(path, manifest)
  return manifest


def _parts(order: np.ndarray, count: int) -> list[np.ndarray]:
  """Divides `order` evenly: the first k parts hold k / count, rounded down.

  Of ImageNet, the first 20 of 1024 shards then hold the 25,022 images of the
  official minival; longer parts before shorter ones would make them 25,040.
  """
  ends = [len(order) * number // count for number in range(1, count)]
  return np.split(order, ends)


def _report(split: str, manifest: dict[str, Any]) -> int:
  """Prints what was written; returns how many files were unreadable."""
  shards = [manifest['shards'][n] for n in sorted(manifest['shards'], key=int)]
  repairs: collections.Counter[str] = collections.Counter()
  for shard in shards:
    repairs.update(shard['repairs'])
    for _, path, reason in shard['unreadable']:
      print(f'unreadable: {path}: {reason}')
  written = sum(shard['written'] for shard in shards)
  total = sum(manifest['settings']['counts'].values())
  kinds = ', '.join(f'{kind} {repairs[kind]}' for kind in sorted(repairs))
  repaired = sum(shard['repaired'] for shard in shards)
  print(
    f'{split}: {written} of {total} images written to {len(shards)} shards;'
    f' {repaired} repaired{f" ({kinds})" if kinds else ""};'
    f' {total - written} unreadable'
  )
  return total - written


def _drop_incomplete(
  output_dir: str, split: str, manifest: dict[str, Any]
) -> None:
  """Deletes shards that lack images, so that none takes them for whole."""
  count = manifest['settings']['num_shards']
  for number, shard in list(manifest['shards'].items()):
    if shard['unreadable']:
      os.remove(manifest_lib.shard_path(output_dir, split, int(number), count))
      del manifest['shards'][number]
  manifest_lib.write(
    os.path.join(output_dir, split + manifest_lib.SUFFIX), manifest
  )


# --- Verifying --------------------------------------------------------------


def verify(output_dir: str, num_workers: int) -> None:
  """Reads every record that `convert` wrote, and compares the counts.

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
  """The problems of a split, a line each; prints what was read."""
  count, shards = manifest['settings']['num_shards'], manifest['shards']
  tasks = [
    shards_lib.CheckTask(
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
  results = dict(
    shards_lib.run(shards_lib.verify_shard, tasks, total, num_workers)
  )
  problems = [p for n in sorted(results) for p in results[n]['problems']]
  for result in results.values():
    found.update(result['labels'])
  if len(tasks) < count:
    unfinished = f'{len(tasks)} of {count} shards are written; run it again'
    problems.append(f'{output_dir}: {split}: {unfinished}')
  elif not problems:  # Records that were lost would be missing in classes.
    problems += [
      f'{output_dir}: {split}: class {name!r}: {found[name]} records of'
      f' {expected[name]}'
      for name in classes
      if found[name] != expected[name]
    ]
  print(f'{split}: {sum(found.values())} records read')
  return problems


# --- The command ------------------------------------------------------------


def _pairs(flag: str, values: Sequence[str]) -> dict[str, str]:
  """Splits <split>=<value> of a flag."""
  pairs: dict[str, str] = {}
  for value in values:
    split, equals, rest = value.partition('=')
    if not equals or not rest or not re.fullmatch(r'\w+', split):
      message = f'--{flag}: got {value!r}; allowed: <split>=<value>'
      raise flags.Error(message)
    if split in pairs:
      raise flags.Error(f'--{flag}: {split!r} is given twice')
    pairs[split] = rest
  return pairs


def _shard_counts(
  splits: Sequence[str], values: Sequence[str]
) -> dict[str, int]:
  """Returns the numbers of shards that --num_shards gives."""
  counts: dict[str, int] = {}
  for split, number in _pairs('num_shards', values).items():
    if split not in splits:
      raise flags.Error(f'--num_shards: --input names no split {split!r}')
    if not re.fullmatch(r'[1-9]\d{0,4}', number):
      message = f'--num_shards: got {number!r}; allowed: 1 to 99999'
      raise flags.Error(message)
    counts[split] = int(number)
  return counts


def define_flags(values: flags.FlagValues) -> None:
  """Defines the flags, apart from those of other commands."""
  define = functools.partial(flags.DEFINE_integer, flag_values=values)
  flags.DEFINE_multi_string(
    'input',
    [],
    '<split>=<folder of class folders, or tar file>; once for each split.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'output_dir', None, 'Folder for the TFRecords.', flag_values=values
  )
  flags.DEFINE_string(
    'labels_file',
    None,
    'Classes of images that are in no class folder: one a line, in the order'
    ' of the sorted file names.',
    flag_values=values,
  )
  flags.DEFINE_multi_string(
    'num_shards',
    [],
    '<split>=<number>. Default: one for each 250 images, at most 1024 for'
    ' train and 128 for other splits.',
    flag_values=values,
  )
  define('seed', 0, 'Of the order.', 0)
  define('num_workers', os.cpu_count() or 1, 'Processes.', 1)
  define('max_unreadable', 0, 'Unreadable files that may be left out.', 0)
  flags.DEFINE_boolean(
    'verify',
    False,
    'Read every record in --output_dir, and write nothing.',
    flag_values=values,
  )


def _check(values: flags.FlagValues) -> None:
  """Whether the flags go together."""
  if not values.output_dir:
    raise flags.Error('--output_dir is needed')
  if bool(values.input) == values.verify:
    raise flags.Error('either --input or --verify is needed')
  _shard_counts(list(_pairs('input', values.input)), values.num_shards)


def parser(
  values: flags.FlagValues = flags.FLAGS,
) -> Callable[[Sequence[str]], list[str]]:
  """What parses the flags; a wrong one ends the program with one line."""
  return program.parser('build_tfrecords', values, _check)


def main(_: list[str]) -> None:
  """Converts, or verifies where --verify asks for it."""
  logging.set_verbosity(logging.INFO)
  f = flags.FLAGS
  try:
    if f.verify:
      verify(f.output_dir, f.num_workers)
      return
    inputs = _pairs('input', f.input)
    convert(
      f.output_dir,
      inputs,
      _shard_counts(list(inputs), f.num_shards),
      f.labels_file,
      f.seed,
      f.num_workers,
      f.max_unreadable,
    )
  except concurrent.futures.process.BrokenProcessPool:
    error = RuntimeError('a worker was killed (out of memory?); run it again')
    program.fail('build_tfrecords', error)
  except (OSError, ValueError) as error:
    program.fail('build_tfrecords', error)


if __name__ == '__main__':
  define_flags(flags.FLAGS)
  app.run(main, flags_parser=parser())
