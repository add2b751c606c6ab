"""Corrupted copies of a test set: the 15 corruptions of ImageNet-C.

Hendrycks and Dietterich, 2019, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations". The package imagecorruptions draws them
on images of any size from 32 x 32 pixels up; `requirements-robustness.txt`
installs it.
"""

from collections.abc import Iterator, Sequence
import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.data import records
from efficientnet_advprop.data import sources

# In the order of the paper, which is also that of the package.
NAMES = (
  'gaussian_noise',
  'shot_noise',
  'impulse_noise',
  'defocus_blur',
  'glass_blur',
  'motion_blur',
  'zoom_blur',
  'snow',
  'frost',
  'fog',
  'brightness',
  'contrast',
  'elastic_transform',
  'pixelate',
  'jpeg_compression',
)
SEVERITIES = (1, 2, 3, 4, 5)
MIN_SIDE = 32  # In pixels; smaller images do not survive the blurs.
MANIFEST = 'corrupted.json'

_BATCH = 64
# Small images are stored without loss, like CIFAR-10-C; larger ones as JPEGs
# of the quality of ImageNet-C, which are a tenth of the size.
_LOSSLESS_SIDE = 64
_JPEG_QUALITY = 85
# These draw from generators of their own unless they are given a seed.
_OWN_GENERATORS = ('impulse_noise', 'glass_blur')


def corrupt(
  image: np.ndarray, name: str, severity: int, seed: int, index: int = 0
) -> np.ndarray:
  """Corrupts one image, as a pure function of the arguments.

  Args:
    image: uint8 [height, width, 3], 32 pixels a side or more.
    name: one of `NAMES`.
    severity: from 1 to 5.
    seed: of the whole test set, from 0 on.
    index: of the image in its test set.

  Returns:
    uint8, like `image`.

  Raises:
    ConfigError: the corruption is unknown.
    DataError: the image is too small, or the package is not installed.
  """
  config_lib.check_choice('corruption', name, NAMES)
  if min(image.shape[:2]) < MIN_SIDE:
    height, width = image.shape[:2]
    raise errors.DataError(
      f'image {index} has {width} x {height} pixels; corruptions need'
      f' {MIN_SIDE} a side'
    )
  package = _package()
  entropy = [seed, NAMES.index(name), severity, index]
  words = np.random.SeedSequence(entropy).generate_state(4)
  own = {'seed': int(words[0])} if name in _OWN_GENERATORS else {}
  # The package draws from NumPy's global generator: lend it one of our own.
  state = np.random.get_state()
  np.random.seed(words)
  try:
    return package.corrupt(
      image, severity=severity, corruption_name=name, **own
    )
  finally:
    np.random.set_state(state)


@functools.lru_cache(maxsize=1)
def _package() -> Any:
  try:
    import imagecorruptions  # Slow to import, and optional.
  except ImportError as error:
    raise errors.DataError(
      f'corruptions need packages that are not here ({error}): pip install -r'
      ' requirements-robustness.txt'
    ) from None
  return imagecorruptions


def data_config(
  config: config_lib.DataConfig, directory: str, name: str
) -> config_lib.DataConfig:
  """Where the images of a corruption lie, a split for each severity.

  Args:
    config: of the run's data.
    directory: of the whole test set.
    name: of the corruption.

  Returns:
    A configuration with the folder `<directory>/<name>`, whose split
    `<severity>` is a folder of class folders or TFRecords.
  """
  return dataclasses.replace(config, dir=os.path.join(directory, name))


@dataclasses.dataclass(frozen=True)
class _Job:
  """All images in one corruption, in the severities that are missing."""

  config: config_lib.Config
  directory: str
  num_images: int
  seed: int
  name: str
  severities: tuple[int, ...]

  def path(self, severity: int) -> str:
    name = f'{severity}-00000-of-00001'
    return os.path.join(self.directory, self.name, name)


def write_corrupted(
  config: config_lib.Config,
  directory: str,
  seed: int = 0,
  num_images: Optional[int] = None,
  num_workers: int = 1,
  report: Optional[Callable[[int, int], None]] = None,
) -> None:
  """Writes a test set in all corruptions and severities as TFRecords.

  The images of `data.eval_split` are cropped and resized to
  `model.image_size` as for evaluation, then corrupted. What is there already
  stays, so that an interrupted call is continued by the next.

  Args:
    config: of a run; its data and image size count.
    directory: gets `<corruption>/<severity>-00000-of-00001`.
    seed: of everything random.
    num_images: how many images, at even distances in the order of reading,
      which takes turns among files; None: all.
    num_workers: processes at work; 1 is this one alone.
    report: called with the numbers of corruptions done and in all.

  Raises:
    ConfigError: the images are too small, or their number is not possible.
    DataError: the images cannot be read, the folder holds another test set, or
      a package is missing.
  """
  _package()
  size, split = config.model.image_size, config.data.eval_split
  if size < MIN_SIDE:
    allowed = f'at least {MIN_SIDE} for corruptions'
    raise config_lib.ConfigError('model.image_size', size, allowed)
  total = pipeline.num_images(config, split)
  count = total if num_images is None else num_images
  if not 1 <= count <= total:
    allowed = f'1 to {total}, the images of {split}'
    raise config_lib.ConfigError('num_images', count, allowed)
  _check_manifest(config, directory, seed, count)
  jobs = []
  for name in NAMES:
    os.makedirs(os.path.join(directory, name), exist_ok=True)
    job = _Job(config, directory, count, seed, name, SEVERITIES)
    missing = [s for s in SEVERITIES if not os.path.exists(job.path(s))]
    if missing:
      jobs.append(dataclasses.replace(job, severities=tuple(missing)))
  done = len(NAMES) - len(jobs)
  for _ in _run(jobs, num_workers):
    done += 1
    if report is not None:
      report(done, len(NAMES))


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
  config: config_lib.Config, directory: str, seed: int, count: int
) -> None:
  """Writes what the folder is to hold, or compares it."""
  facts = {
    'data_dir': sources.data_dir(config.data),
    'split': config.data.eval_split,
    'image_size': config.model.image_size,
    'eval_crop_padding': config.data.eval_crop_padding,
    'num_images': count,
    'seed': seed,
  }
  path = os.path.join(directory, MANIFEST)
  try:
    with open(path, encoding='utf-8') as file:
      found = json.load(file)
  except FileNotFoundError:
    os.makedirs(directory, exist_ok=True)
    with open(path, 'w', encoding='utf-8') as file:
      file.write(json.dumps(facts, indent=2) + '\n')
    return
  except ValueError:
    raise errors.DataError(f'{path}: not JSON; use another folder') from None
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
    for index, image, label in _images(job.config, job.num_images):
      for severity, writer in writers.items():
        corrupted = corrupt(image, job.name, severity, job.seed, index)
        writer.write(_example(corrupted, label))
  for severity, path in temporary.items():
    os.replace(path, job.path(severity))


def _images(
  config: config_lib.Config, count: int
) -> Iterator[tuple[int, np.ndarray, int]]:
  """The images at even distances: place, uint8 pixels, label."""
  split = config.data.eval_split
  total = pipeline.num_images(config, split)
  picked = {number * total // count for number in range(count)}
  dataset = pipeline.eval_dataset(config, split, batch_size=_BATCH)
  start = 0
  try:
    for batch in dataset.as_numpy_iterator():
      pixels = np.rint((batch['image'] + 1) * 127.5).astype(np.uint8)
      for row in np.flatnonzero(batch['weight']):
        if start + row in picked:
          yield start + int(row), pixels[row], int(batch['label'][row])
      start += len(pixels)
  except tf.errors.OpError as error:
    raise records.explain(error) from error


def _example(image: np.ndarray, label: int) -> bytes:
  """A record of the ImageNet schema."""
  if max(image.shape[:2]) <= _LOSSLESS_SIDE:
    encoded = tf.io.encode_png(image).numpy()
  else:
    encoded = tf.io.encode_jpeg(image, quality=_JPEG_QUALITY).numpy()
  features = {
    'image/encoded': tf.train.Feature(
      bytes_list=tf.train.BytesList(value=[encoded])
    ),
    'image/class/label': tf.train.Feature(
      int64_list=tf.train.Int64List(value=[label + 1])
    ),
  }
  message = tf.train.Example(features=tf.train.Features(feature=features))
  return message.SerializeToString()
