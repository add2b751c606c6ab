"""Converts images to TFRecords, in a way that resumes after a kill."""

import collections
from collections.abc import Collection, Sequence
import glob
import os
import re
from typing import Any, Optional

from absl import logging
import numpy as np
import PIL

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import files
from efficientnet_advprop.base import locks
from tools.tfrecords import image_listing
from tools.tfrecords import manifest as manifest_lib
from tools.tfrecords import shards as shards_lib
from tools.tfrecords import workers

# As the official script divides ImageNet; smaller sets get fewer shards.
_MAX_SHARDS = {'train': 1024}
_MAX_OTHER_SHARDS = 128
_IMAGES_PER_SHARD = 250


def convert(
  output_dir: str,
  inputs: dict[str, str],
  num_shards: dict[str, int],
  labels_file: Optional[str],
  seed: int,
  num_workers: int,
  max_unreadable: int,
) -> None:
  """Writes the shards of all splits, and labels.txt.

  Args:
    output_dir: the folder for them.
    inputs: by split, a folder of class folders or a tar file.
    num_shards: the number of shards, by split; the size decides on others.
    labels_file: names the classes of images that are in no class folder.
    seed: decides on the order of the images.
    num_workers: the number of processes.
    max_unreadable: the number of unreadable files that may be left out.

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
  """Returns how many shards a split gets by its size."""
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
    'pillow': PIL.__version__,  # Versions may encode repaired images otherwise.
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
    done = workers.run(shards_lib.write_shard, tasks, left, num_workers)
    for number, result in done:
      manifest['shards'][str(number)] = result
      manifest_lib.write(path, manifest)
  return manifest


def _parts(order: np.ndarray, count: int) -> list[np.ndarray]:
  """Divides `order` evenly: the first k parts hold k / count, rounded down.

  The first 20 of ImageNet's 1024 shards then hold the 25,022 images of the
  official minival; with longer parts before shorter ones, 25,040.
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
  """Deletes shards that lack images, so that nobody takes them for whole."""
  count = manifest['settings']['num_shards']
  for number, shard in list(manifest['shards'].items()):
    if shard['unreadable']:
      os.remove(manifest_lib.shard_path(output_dir, split, int(number), count))
      del manifest['shards'][number]
  manifest_lib.write(
    os.path.join(output_dir, split + manifest_lib.SUFFIX), manifest
  )


def pairs(flag: str, values: Sequence[str]) -> dict[str, str]:
  """Reads the <split>=<value> of a flag.

  Raises:
    ValueError: a value has another form, or names a split again.
  """
  pairs: dict[str, str] = {}
  for value in values:
    split, equals, rest = value.partition('=')
    if not equals or not rest or not re.fullmatch(r'\w+', split):
      message = f'--{flag}: got {value!r}; allowed: <split>=<value>'
      raise ValueError(message)
    if split in pairs:
      raise ValueError(f'--{flag}: {split!r} is given twice')
    pairs[split] = rest
  return pairs


def shard_counts(
  splits: Collection[str], values: Sequence[str]
) -> dict[str, int]:
  """Reads the numbers of shards of the flag --num_shards.

  Raises:
    ValueError: a value is no number, or names none of the splits.
  """
  counts: dict[str, int] = {}
  for split, number in pairs('num_shards', values).items():
    if split not in splits:
      raise ValueError(f'--num_shards: --input names no split {split!r}')
    if not re.fullmatch(r'[1-9]\d{0,4}', number):
      message = f'--num_shards: got {number!r}; allowed: 1 to 99999'
      raise ValueError(message)
    counts[split] = int(number)
  return counts
