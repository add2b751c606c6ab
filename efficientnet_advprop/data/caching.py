"""Decodes the images of a split once, for all epochs and evaluations.

What training caches is the whole image in levels of 0-255, before any crop.
What evaluation caches is the finished crop. `data.cache` says where: in memory,
or in a folder, in which every set of images and settings has a folder of its
own, named by a digest of both. That folder appears when it is complete: a
process that is killed leaves one that the next process removes.
"""

from collections.abc import Callable, Iterator, Mapping
import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import os
import shutil
import time
from typing import Any, BinaryIO, Optional

from absl import logging
import numpy as np
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import locks
from efficientnet_advprop.base import memory
from efficientnet_advprop.base import progress
from efficientnet_advprop.data import bad_records
from efficientnet_advprop.data import image_store
from efficientnet_advprop.data import preprocessing
from efficientnet_advprop.data import records

MEMORY = 'memory'

_IMAGES, _INDEX = 'images', 'index.npz'
_UNFINISHED = '.unfinished'  # The ending of a folder that is being written.
# Images that are decoded in one go, as in `pipeline`.
_CHUNK = 16
# After so many images their sizes are an estimate of all sizes.
_SAMPLE = 64
# The rest of the free memory is for the training itself.
_SHARE_OF_MEMORY = 0.8
_WAIT_SECONDS = 1

# From an encoded image and its shape to what is cached of it.
_Make = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def training(
  config: config_lib.Config, source: records.Source
) -> records.Source:
  """Returns a training set that is read from the cache, if there is to be one.

  Its images are whole, and reduced to `data.cache_short_side`.

  Args:
    config: the run.
    source: as `sources.find` returns it.

  Raises:
    DataError: the images do not fit, cannot be written, or are not counted, or
      more of them are bad than `data.max_bad_records`; one line says which.
  """
  short_side = config.data.cache_short_side
  settings = {'image': 'whole', 'short_side': short_side}
  make = functools.partial(preprocessing.whole_image, short_side=short_side)
  return _cached(config.data, source, settings, make)


def evaluation(
  config: config_lib.Config, source: records.Source
) -> records.Source:
  """Returns an evaluation set that is read from the cache; see `training`.

  Its images are finished crops of `model.image_size`.
  """
  size, padding = config.model.image_size, config.data.eval_crop_padding
  settings = {'image': 'crop', 'size': size, 'padding': padding}

  def make(encoded: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    return preprocessing.evaluation_image(encoded, size, padding, shape)

  return _cached(config.data, source, settings, make)


def _cached(
  data: config_lib.DataConfig,
  source: records.Source,
  settings: Mapping[str, Any],
  make: _Make,
) -> records.Source:
  place = data.cache
  if place is None:
    return source
  if source.counts is None:
    raise errors.DataError(
      f'data.cache={place}: the images of {source.name!r} are not counted;'
      ' tools/build_tfrecords.py writes the manifest that counts them'
    )
  if place == MEMORY:
    with image_store.file_in_memory() as file:
      store = image_store.Store(file, _fill(file, data, source, make))
  else:
    folder = os.path.join(place, f'{source.name}-{_digest(source, settings)}')
    try:
      os.makedirs(place, exist_ok=True)
      store = _in_folder(folder, data, source, make)
    except OSError as error:
      reason = error.strerror or error
      raise errors.DataError(f'data.cache={place}: {reason}') from error
  return dataclasses.replace(source, cache=store)


# --- The folder -------------------------------------------------------------


def _digest(source: records.Source, settings: Mapping[str, Any]) -> str:
  """Returns a name for images and settings; files count by size and time."""

  def facts(path: str) -> tuple[str, int, int]:
    found = tf.io.gfile.stat(path)
    return os.path.abspath(path), found.length, found.mtime_nsec

  with concurrent.futures.ThreadPoolExecutor(16) as threads:
    files = list(threads.map(facts, source.files))
  fields = {
    field.name: getattr(source, field.name)
    for field in dataclasses.fields(source)
    if field.name not in ('files', 'cache')
  }
  text = json.dumps([
    *(image_store.HEADER.decode(), tf.__version__, dict(settings)),
    *(fields, files),
  ])  # fmt: skip
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _in_folder(
  folder: str, data: config_lib.DataConfig, source: records.Source, make: _Make
) -> image_store.Store:
  """Opens the images of a folder, after it is written if need be."""
  store = _open(folder, data, source)
  while store is None:
    store = _wait_or_write(folder, data, source, make)
  return store


def _open(
  folder: str, data: config_lib.DataConfig, source: records.Source
) -> Optional[image_store.Store]:
  """Opens the images of a folder; None if there are none, or damaged ones."""
  if not os.path.isdir(folder):
    return None
  images = os.path.join(folder, _IMAGES)
  try:
    index = image_store.read_index(os.path.join(folder, _INDEX))
    if (
      len(index.starts) != source.size or os.stat(images).st_size != index.size
    ):
      raise ValueError('of another size')
  except (OSError, ValueError) as error:
    logging.warning('%s: damaged (%s); decoding again', folder, error)
    return None
  _check_bad(index.bad, index.problems, data)
  store = image_store.Store(images, index)
  logging.info(
    'data.cache: %d images of %s are in %s', source.size, source.name, folder
  )
  return store


def _wait_or_write(
  folder: str,
  data: config_lib.DataConfig,
  source: records.Source,
  make: _Make,
) -> Optional[image_store.Store]:
  """Writes a folder, unless another process does; None if it may be there."""
  place, name = os.path.split(folder)
  try:
    with locks.locked(place):
      # The one that held the lock may have written it.
      store = _open(folder, data, source)
      if store is None:
        _write(folder, data, source, make)
        store = _open(folder, data, source)
      return store
  except errors.LockedError as error:
    logging.log_every_n_seconds(
      logging.INFO, 'Waiting for %s: %s', 60, name, error
    )
    time.sleep(_WAIT_SECONDS)
    return _open(folder, data, source)


def _write(
  folder: str,
  data: config_lib.DataConfig,
  source: records.Source,
  make: _Make,
) -> None:
  """Writes a folder, whole or not at all; the caller holds the lock."""
  place = os.path.dirname(folder)
  for name in os.listdir(place):  # A killed process left them.
    if name.endswith(_UNFINISHED):
      shutil.rmtree(os.path.join(place, name))
  if os.path.isdir(folder):
    shutil.rmtree(folder)
  unfinished = folder + _UNFINISHED
  os.mkdir(unfinished)
  try:
    with open(os.path.join(unfinished, _IMAGES), 'wb') as file:
      index = _fill(file, data, source, make)
      file.flush()
      os.fsync(file.fileno())
    image_store.write_index(os.path.join(unfinished, _INDEX), index)
  except BaseException:
    shutil.rmtree(unfinished)
    raise
  os.rename(unfinished, folder)


# --- Decoding ---------------------------------------------------------------


def _fill(
  file: BinaryIO,
  data: config_lib.DataConfig,
  source: records.Source,
  make: _Make,
) -> image_store.Index:
  """Writes all images of a source to a file.

  Raises:
    DataError: there is no space for them, or too many are bad.
  """
  size = source.size
  starts, sides = np.zeros([size], np.int64), np.zeros([size, 2], np.int32)
  labels = np.zeros([size], np.int32)
  bad: list[int] = []
  problems: list[bytes] = []
  shown = progress.Progress(f'decoding {source.name}')
  begun = time.monotonic()
  file.write(image_store.HEADER)
  written = done = 0
  for chunk in _decoded(source, make):
    numbers = chunk['number']
    ends = written + np.cumsum(chunk['bytes_each'])
    starts[numbers] = len(image_store.HEADER) + ends - chunk['bytes_each']
    sides[numbers], labels[numbers] = chunk['sides'], chunk['label']
    for row in np.flatnonzero(chunk['problem'] != b''):
      bad.append(int(numbers[row]))
      problems.append(chunk['problem'][row])
    _check_bad(bad, problems, data)
    file.write(chunk['bytes'].data)
    written, done = int(ends[-1]), done + len(numbers)
    if done % _SAMPLE == 0 or done == size:
      _check_space(data, source, written, done)
    shown(done, size)
  logging.info(
    'data.cache: decoded %d images of %s, %s, in %s',
    size,
    source.name,
    memory.format_bytes(written),
    progress.format_seconds(time.monotonic() - begun),
  )
  return image_store.Index(
    starts, sides, labels, np.array(bad, np.int64), np.array(problems, 'S'),
    len(image_store.HEADER) + written,
  )  # fmt: skip


def _check_bad(bad: Any, problems: Any, data: config_lib.DataConfig) -> None:
  """Raises DataError if there are more bad images than are allowed."""
  limit = data.max_bad_records
  if len(bad) > limit:
    problem = problems[0].decode(errors='replace')
    suffix = f' (data.max_bad_records={limit})' if limit else ''
    raise errors.DataError(problem + suffix)


def _check_space(
  data: config_lib.DataConfig, source: records.Source, written: int, done: int
) -> None:
  """Raises DataError if the images that are left are too large by estimate."""
  assert data.cache is not None
  left = written / done * (source.size - done)
  if data.cache == MEMORY:
    free, where = memory.free_bytes(), 'of memory'
    usable = None if free is None else free * _SHARE_OF_MEMORY
  else:
    free, where = shutil.disk_usage(data.cache).free, 'on that disk'
    usable = free
  if free is None or usable is None or left <= usable:
    return
  shown = memory.format_bytes
  raise errors.DataError(
    f'data.cache={data.cache}: {source.size} decoded images of {source.name!r}'
    f' take about {shown(written + left)}, and {shown(free + written)} {where}'
    ' are free; data.cache_short_side reduces large training images'
  )


def _decoded(
  source: records.Source, make: _Make
) -> Iterator[dict[str, np.ndarray]]:
  """Decodes all records of a source, several at a time.

  Yields:
    What is known of some of them: `number`, `label`, `sides`, `problem` and
    `bytes_each`, a row for each, and the `bytes` of all of them.
  """

  def decode_one(record: records.Record) -> dict[str, tf.Tensor]:
    encoded, shape, label = records.parse(
      source, preprocessing.image_shape, record
    )
    image = make(encoded, shape)
    values = tf.reshape(tf.bitcast(image, tf.uint8), [-1])
    # Batches of a length that is known would be no ragged tensors.
    values = tf.compat.v1.placeholder_with_default(values, [None])
    sides = tf.shape(image)[:2]
    return {'bytes': values, 'sides': sides, 'label': label, 'problem': ''}

  spec = {
    'bytes': tf.TensorSpec([0], tf.uint8),
    'sides': tf.TensorSpec([2], tf.int32),
    'label': tf.TensorSpec([], tf.int32),
    'problem': tf.TensorSpec([], tf.string),
  }
  failures = bad_records.failures(source, preprocessing.image_shape, spec)

  @tf.autograph.experimental.do_not_convert
  def decode_chunk(
    numbered: records.Record, chunk: records.Record
  ) -> tf.data.Dataset:
    size = tf.size(numbered['number'], tf.int64)

    def joined(examples: tf.data.Dataset) -> tf.data.Dataset:
      return examples.ragged_batch(size, True).map(
        lambda found: {
          **found,
          **numbered,
          'bytes': found['bytes'].flat_values,
          'bytes_each': found['bytes'].row_lengths(),
        }
      )

    stored = tf.data.Dataset.from_tensor_slices(chunk)
    # Only if one of them fails does the chunk pay for saying which.
    singly = stored.flat_map(
      lambda record: bad_records.first_successful(record, decode_one, *failures)
    )
    together = joined(stored.map(decode_one)).ignore_errors()
    return together.concatenate(joined(singly)).take(1)

  files = tf.data.Dataset.range(len(source.files))
  stream = records.number(source, files), records.read(source, files)
  chunks = tf.data.Dataset.zip(stream).batch(_CHUNK)
  decoded = chunks.interleave(
    decode_chunk,
    cycle_length=tf.data.AUTOTUNE,
    num_parallel_calls=tf.data.AUTOTUNE,
    deterministic=True,
  )
  return decoded.as_numpy_iterator()
