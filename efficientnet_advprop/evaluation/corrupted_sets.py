"""Corrupted copies of a test set: 15 corruptions in 5 severities, 75 files.

Each file appears when it is whole, so that an interrupted call is resumed. The
folder's `corrupted.json` records of which images the set is made.
"""

from collections.abc import Iterator, Sequence
import concurrent.futures
import contextlib
import dataclasses
import json
import multiprocessing
import os
from typing import Callable, Optional

import numpy as np
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import files
from efficientnet_advprop.data import bad_records
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.data import records
from efficientnet_advprop.data import sources
from efficientnet_advprop.data import tfrecords
from efficientnet_advprop.evaluation import corruptions

MANIFEST = 'corrupted.json'

_BATCH = 64
# Small images are stored without loss, like CIFAR-10-C; larger ones as JPEGs
# of the quality of ImageNet-C, which are a tenth of the size.
_LOSSLESS_SIDE = 64
_JPEG_QUALITY = 85


def data_of(
  config: config_lib.DataConfig, directory: str, name: str
) -> config_lib.DataConfig:
  """Returns the settings that read a corruption, with a split per severity.

  Args:
    config: the settings of the run's data.
    directory: of the whole set.
    name: of the corruption.

  Returns:
    Settings with the folder `<directory>/<name>`, whose split `<severity>` is a
    folder of class folders or TFRecords.
  """
  return dataclasses.replace(config, dir=os.path.join(directory, name))


@dataclasses.dataclass(frozen=True)
class _Job:
  """The images of one corruption, in the severities that are missing."""

  config: config_lib.Config
  source: records.Source
  directory: str
  num_images: int
  seed: int
  name: str
  severities: tuple[int, ...]
  strengths: str

  def path(self, severity: int) -> str:
    name = f'{severity}-00000-of-00001'
    return os.path.join(self.directory, self.name, name)


def check(config: config_lib.Config) -> None:
  """Checks that the images of a run can be corrupted.

  Raises:
    ConfigError: the images are too small.
    DataError: a package is missing.
  """
  corruptions.package()
  size = config.model.image_size
  if size < corruptions.MIN_SIDE:
    allowed = f'at least {corruptions.MIN_SIDE} for corruptions'
    raise config_lib.ConfigError('model.image_size', size, allowed)


def strengths_of(directory: str) -> Optional[str]:
  """Returns whose strengths a set has; None if its record does not say it."""
  path = os.path.join(directory, MANIFEST)
  try:
    with tf.io.gfile.GFile(path) as file:
      return json.loads(file.read()).get('strengths')
  except (tf.errors.OpError, ValueError, AttributeError):
    return None


def write(
  config: config_lib.Config,
  directory: str,
  seed: int = 0,
  num_images: Optional[int] = None,
  num_workers: int = 1,
  strengths: Optional[str] = None,
  report: Optional[Callable[[int, int], None]] = None,
) -> None:
  """Writes a split in all corruptions and severities as TFRecords.

  The images of `data.eval_split` are cropped and resized to
  `model.image_size` as for evaluation, then corrupted. Existing files stay as
  they are, so that the next call resumes an interrupted one.

  Args:
    config: of a run; its data and image size count.
    directory: gets `<corruption>/<severity>-00000-of-00001`.
    seed: of everything random.
    num_images: how many images, evenly spaced in the order of reading, which
      takes turns among files; None for all.
    num_workers: number of processes; 1 is this one alone.
    strengths: one of `corruptions.STRENGTHS`; None for those of the image size.
    report: called with the number of corruptions done and their total.

  Raises:
    ConfigError: the images are too small, or their number is not possible.
    DataError: the images cannot be read, the folder holds another test set, or
      a package is missing.
  """
  check(config)
  split = config.data.eval_split
  source = sources.find(config.data, split)
  count = source.size if num_images is None else num_images
  if not 1 <= count <= source.size:
    allowed = f'1 to {source.size}, the images of {split}'
    raise config_lib.ConfigError('num_images', count, allowed)
  strengths = strengths or corruptions.strengths_for(config.model.image_size)
  config_lib.check_choice('strengths', strengths, corruptions.STRENGTHS)
  _check_manifest(config, directory, seed, count, strengths)
  jobs = []
  for name in corruptions.NAMES:
    os.makedirs(os.path.join(directory, name), exist_ok=True)
    job = _Job(
      *(config, source, directory, count, seed, name),
      *(corruptions.SEVERITIES, strengths),
    )
    missing = [
      s for s in corruptions.SEVERITIES if not os.path.exists(job.path(s))
    ]
    if missing:
      jobs.append(dataclasses.replace(job, severities=tuple(missing)))
  done = len(corruptions.NAMES) - len(jobs)
  for _ in _run(jobs, num_workers):
    done += 1
    if report is not None:
      report(done, len(corruptions.NAMES))


def _run(jobs: Sequence[_Job], num_workers: int) -> Iterator[None]:
  if num_workers == 1:
    yield from map(_write, jobs)
    return
  # Forked processes would inherit TensorFlow's locked threads.
  context = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(num_workers, context) as pool:
    futures = [pool.submit(_write, job) for job in jobs]
    try:
      for future in concurrent.futures.as_completed(futures):
        yield future.result()
    finally:
      for future in futures:
        future.cancel()


def _check_manifest(
  config: config_lib.Config,
  directory: str,
  seed: int,
  count: int,
  strengths: str,
) -> None:
  """Records what the folder will hold, or compares it with the record."""
  facts = {
    'data_dir': sources.data_dir(config.data),
    'split': config.data.eval_split,
    'image_size': config.model.image_size,
    'eval_crop_padding': config.data.eval_crop_padding,
    'num_images': count,
    'seed': seed,
    'strengths': strengths,
  }
  path = os.path.join(directory, MANIFEST)
  try:
    with open(path, encoding='utf-8') as file:
      found = json.load(file)
  except FileNotFoundError:
    os.makedirs(directory, exist_ok=True)
    files.write_json(path, facts, indent=2)
    return
  except ValueError:
    raise errors.DataError(f'{path}: not JSON; use another folder') from None
  # Sets of earlier versions were the package's and do not say so.
  found.setdefault('strengths', corruptions.PACKAGE)
  for key, value in facts.items():
    if found.get(key) != value:
      raise errors.DataError(
        f'{directory}: holds a corrupted set whose {key} is'
        f' {found.get(key)!r}, not {value!r}; use another folder'
      )


def _write(job: _Job) -> None:
  """Writes the files of a corruption, each whole or not at all."""
  temporary = {n: f'{job.path(n)}.tmp' for n in job.severities}
  with contextlib.ExitStack() as stack:
    writers = {
      severity: stack.enter_context(tf.io.TFRecordWriter(path))
      for severity, path in temporary.items()
    }
    for index, image, label in _images(job):
      for severity, writer in writers.items():
        corrupted = corruptions.corrupt(
          image, job.name, severity, job.seed, index, job.strengths
        )
        writer.write(_example(corrupted, label))
  for severity, path in temporary.items():
    os.replace(path, job.path(severity))


def _images(job: _Job) -> Iterator[tuple[int, np.ndarray, int]]:
  """Yields evenly spaced images: position, uint8 pixels, label."""
  total, count = job.source.size, job.num_images
  picked = {number * total // count for number in range(count)}
  dataset = pipeline.eval_dataset(job.config, job.source, batch_size=_BATCH)
  start = 0
  with bad_records.data_errors():
    for batch in dataset.as_numpy_iterator():
      pixels = np.rint((batch['image'] + 1) * 127.5).astype(np.uint8)
      for row in np.flatnonzero(batch['weight']):
        if start + row in picked:
          yield start + int(row), pixels[row], int(batch['label'][row])
      start += len(pixels)


def _example(image: np.ndarray, label: int) -> bytes:
  """Encodes a record of the ImageNet schema."""
  if max(image.shape[:2]) <= _LOSSLESS_SIDE:
    encoded = tf.io.encode_png(image).numpy()
  else:
    encoded = tf.io.encode_jpeg(image, quality=_JPEG_QUALITY).numpy()
  return tfrecords.encode_example(
    {'image/encoded': encoded, 'image/class/label': label + 1}
  )
