"""How long a training set of ImageNet's size takes to start and to resume.

The records are as many as ImageNet's and tiny, so that the figures are those of
listing, counting, ordering and skipping. Real images add the time to read the
bytes of the records that a resumed run skips.
"""

from collections.abc import Iterator, Mapping
import contextlib
import json
import os
import tempfile
import time
from typing import Any

import numpy as np

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.data import shards as shards_lib
from efficientnet_advprop.data import sources
from efficientnet_advprop.data import tfrecords

import tensorflow as tf  # isort: skip

_SIDE = 8  # In pixels; the smallest that is read.
_CLASSES = 1000


def write(directory: str, num_records: int, num_shards: int) -> int:
  """Writes shards of a training set and their manifest.

  Args:
    directory: gets the files.
    num_records: over all shards, as even as possible.
    num_shards: at most the records.

  Returns:
    The size of all shards in bytes.
  """
  pixels = np.random.default_rng(0).integers(0, 256, [_SIDE, _SIDE, 3])
  encoded = tf.io.encode_jpeg(pixels.astype(np.uint8)).numpy()
  stated: dict[str, dict[str, int]] = {}
  for shard in range(num_shards):
    count = (shard + 1) * num_records // num_shards
    count -= shard * num_records // num_shards
    values = {
      'image/encoded': encoded,
      'image/class/label': shard % _CLASSES + 1,
    }
    name = f'train-{shard:05d}-of-{num_shards:05d}'
    path = os.path.join(directory, name)
    with tf.io.TFRecordWriter(path) as writer:
      writer.write(tfrecords.encode_example(values))
    with open(path, 'rb') as file:
      framed = file.read()
    with open(path, 'wb') as file:
      file.write(framed * count)
    stated[str(shard)] = {'bytes': len(framed) * count, 'written': count}
  path = os.path.join(directory, 'train' + shards_lib.MANIFEST_SUFFIX)
  with open(path, 'w', encoding='utf-8') as file:
    json.dump({'shards': stated}, file)
  return sum(entry['bytes'] for entry in stated.values())


def run_config(
  directory: str, num_records: int, batch_size: int, window: int
) -> config_lib.Config:
  """Returns a run on what `write` wrote, which decodes as little as it can."""
  return config_lib.from_dict(
    {
      'model': {'image_size': _SIDE},
      'data': {
        'dir': directory,
        'num_classes': _CLASSES,
        'num_train_images': num_records,
        'augmentation': 'none',
        'shuffle_window': window,
      },
      'train': {'batch_size': batch_size},
    }
  )


def measure(
  num_records: int,
  num_shards: int,
  batch_size: int,
  window: int,
  folder: str = '',
) -> dict[str, Any]:
  """Measures a start, and a resumption in the middle of the tenth epoch.

  Args:
    num_records: of the training set.
    num_shards: of the training set.
    batch_size: images of a step.
    window: `data.shuffle_window`.
    folder: in which a temporary one is made; empty for the system's choice.

  Returns:
    The figures: `count_seconds` to find the shards and count their records by
    the headers, `manifest_seconds` to find them by the manifest,
    `start_seconds` and `resume_seconds` from there to the first batch; the same
    as `..._cpu_seconds`, over all threads; and what was measured.
  """
  with tempfile.TemporaryDirectory(dir=folder or None) as directory:
    size = write(directory, num_records, num_shards)
    config = run_config(directory, num_records, batch_size, window)
    resumed = int(9.5 * num_records) // batch_size
    figures: dict[str, Any] = {
      'records': num_records,
      'shards': num_shards,
      'megabytes': round(size / 1e6),
      'batch_size': batch_size,
      'shuffle_window': window,
      'resumed_step': resumed,
    }
    with _timed(figures, 'count'):
      source = sources.find(config.data, 'train')
    with _timed(figures, 'manifest'), _counted_by_manifest():
      assert sources.find(config.data, 'train').size == source.size
    for name, step in ('start', 0), ('resume', resumed):
      with _timed(figures, name):
        dataset = pipeline.train_dataset(config, source, step)
        next(iter(dataset))
  return {**figures, 'tensorflow': tf.__version__, 'cores': os.cpu_count()}


@contextlib.contextmanager
def _timed(figures: dict[str, Any], name: str) -> Iterator[None]:
  began, cpu_began = time.monotonic(), time.process_time()
  yield
  figures[f'{name}_seconds'] = round(time.monotonic() - began, 2)
  figures[f'{name}_cpu_seconds'] = round(time.process_time() - cpu_began, 2)


@contextlib.contextmanager
def _counted_by_manifest() -> Iterator[None]:
  """Treats shards of any size as ones that are too large to be counted."""
  counted = shards_lib._COUNTED_BYTES
  shards_lib._COUNTED_BYTES = 0
  try:
    yield
  finally:
    shards_lib._COUNTED_BYTES = counted


def report(figures: Mapping[str, Any]) -> None:
  """Prints the figures, one a line, and a last line of JSON."""
  for name, value in figures.items():
    print(f'{name:22}{value}')
  print(json.dumps(dict(figures)))
