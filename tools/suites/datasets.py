"""The images of a suite: a part of each split, and corrupted test images."""

from collections.abc import Sequence
import dataclasses
import glob
import os
from typing import Optional

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import files
from efficientnet_advprop.data import bad_records
from efficientnet_advprop.data import preprocessing
from efficientnet_advprop.data import records
from efficientnet_advprop.data import sources
from efficientnet_advprop.data import tfds_splits
from efficientnet_advprop.data import tfrecords
from efficientnet_advprop.evaluation import corrupted_sets
from efficientnet_advprop.evaluation import corruptions
from tools.suites import suite as suite_lib

CORRUPTED = 'corrupted'  # The split that holds all corruptions together.


def prepare(
  suite: suite_lib.Suite, data_dir: str, directory: str, num_workers: int
) -> None:
  """Writes what is not there yet of a suite's images, as TFRecords.

  Args:
    suite: says how many.
    data_dir: TFRecords, class folders or `tfds:<name>`; empty for the embedded
      data set.
    directory: gets the splits, and `corrupted`: all corruptions of images of
      data.eval_split.
    num_workers: processes that corrupt images.

  Raises:
    ConfigError: a split holds too few images.
    DataError: the images cannot be read, or a package is missing.
  """
  os.makedirs(directory, exist_ok=True)
  config = suite.config
  taken: dict[str, list[Optional[int]]] = {}  # By split of the data.
  for split, part in suite.splits.items():
    counts = taken.setdefault(part.source, [])
    counts.append(part.images)
    path = os.path.join(directory, f'{split}-00000-of-00001')
    if not os.path.exists(path):
      source = _find(config.data, data_dir, part.source)
      written = _write_part(source, split, counts, path)
      logging.info('%s: %d images', path, written)
  if not suite.corrupted_images:
    return
  # Whole images, of which the tests take the middle as they do of others.
  size = config.model.image_size + config.data.eval_crop_padding
  model = dataclasses.replace(config.model, image_size=size)
  data = dataclasses.replace(config.data, dir=directory, eval_crop_padding=0)
  config = dataclasses.replace(config, data=data, model=model)
  corrupted = os.path.join(directory, 'corruptions')
  corrupted_sets.write(
    config,
    corrupted,
    num_images=suite.corrupted_images,
    num_workers=num_workers,
    # Those of the published results of the suites.
    strengths=corruptions.PACKAGE,
    report=lambda done, total: logging.info(
      '%d of %d corruptions written', done, total
    ),
  )
  # Files of TFRecords make a split by their names.
  paths = sorted(glob.glob(os.path.join(corrupted, '*', '*-of-00001')))
  for number, path in enumerate(paths):
    name = f'{CORRUPTED}-{number:05}-of-{len(paths):05}'
    link = os.path.join(directory, name)
    if not os.path.islink(link):
      os.symlink(os.path.relpath(path, directory), link)


def _find(
  config: config_lib.DataConfig, data_dir: str, split: str
) -> records.Source:
  whole = dataclasses.replace(config, dir=data_dir)
  if tfds_splits.is_tfds(data_dir) and split == 'validation':
    split = 'test'  # The name in CIFAR-10 and most others.
  return sources.find_set(whole, split)


def _write_part(
  source: records.Source,
  split: str,
  counts: Sequence[Optional[int]],
  path: str,
) -> int:
  """Writes images at even distances in the order of reading.

  Reading takes turns among files: of ten files, every tenth image is the first
  file's.

  Args:
    source: what is read.
    split: the name that the part gets, for messages.
    counts: how many images each part of `source` takes, this one last; None
      takes all that are left.
    path: of the file.

  Returns:
    How many they are.
  """
  if source.counts is None:
    raise errors.DataError(f'{split}: too many images to count')
  left, picked = list(range(source.size)), set()
  for count in counts:
    left = [number for number in left if number not in picked]
    count = len(left) if count is None else count
    if count > len(left):
      allowed = f'at most {len(left)}, as many as are left'
      raise config_lib.ConfigError(f'splits.{split}', count, allowed)
    picked = {left[number * len(left) // count] for number in range(count)}
  order = tf.data.Dataset.range(len(source.files))
  found = records.read(source, order).map(
    lambda record: records.parse(source, preprocessing.image_shape, record)
  )
  temporary = files.temporary_name(path)
  try:
    with tf.io.TFRecordWriter(temporary) as writer:
      for number, (image, _, label) in enumerate(found.as_numpy_iterator()):
        if number in picked:
          values = {
            'image/encoded': image,
            'image/class/label': int(label) + 1,
          }
          writer.write(tfrecords.encode_example(values))
  except tf.errors.OpError as error:
    raise bad_records.explain(error) from error
  os.replace(temporary, path)
  return len(picked)
