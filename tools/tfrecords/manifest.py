"""The manifest of a conversion, so that it can resume."""

import glob
import json
import os
from typing import Any

from efficientnet_advprop.base import errors
from efficientnet_advprop.base import files
from efficientnet_advprop.data import shards

SUFFIX = shards.MANIFEST_SUFFIX

# `settings` of a split's conversion, and `shards`: what `shards.write_shard`
# returned, by the number of each finished shard.
Manifest = dict[str, Any]


def write(path: str, manifest: Manifest) -> None:
  """Writes a manifest, the same bytes for the same contents."""
  text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=True)
  files.write(path, text + '\n')


def read(path: str) -> Manifest:
  """Reads a manifest.

  Raises:
    DataError: it is damaged.
  """
  try:
    with open(path, encoding='utf-8') as file:
      manifest = json.load(file)
    manifest['settings']['num_shards'], manifest['shards']
  except (ValueError, KeyError, TypeError):
    problem = f'{path}: damaged; use another --output_dir'
    raise errors.DataError(problem) from None
  return manifest


def shard_path(output_dir: str, split: str, number: int, count: int) -> str:
  """Returns the path of a shard, by its number and the number of shards."""
  return os.path.join(output_dir, f'{split}-{number:05d}-of-{count:05d}')


def resume(output_dir: str, split: str, settings: dict[str, Any]) -> Manifest:
  """Returns the manifest of a split, without shards that are missing.

  Raises:
    DataError: the folder holds shards that were made with other settings.
  """
  path = os.path.join(output_dir, split + SUFFIX)
  pattern = os.path.join(glob.escape(output_dir), f'{split}-?????-of-?????')
  if not os.path.exists(path):
    present = sorted(glob.glob(pattern))
    if present:
      raise errors.DataError(f'{present[0]}: of another data set')
    manifest: Manifest = {'settings': settings, 'shards': {}}
    write(path, manifest)
    return manifest
  manifest = read(path)
  for key, value in settings.items():
    before = manifest['settings'].get(key)
    if before != value:
      raise errors.DataError(
        f'{path}: begun with {key} {_short(before)}, not {_short(value)};'
        ' use another --output_dir'
      )
  for number, shard in list(manifest['shards'].items()):
    file = shard_path(output_dir, split, int(number), settings['num_shards'])
    if not os.path.isfile(file) or os.path.getsize(file) != shard['bytes']:
      del manifest['shards'][number]
  return manifest


def _short(value: Any) -> str:
  text = str(value)
  return text if len(text) <= 20 else f'{text[:12]}...'
