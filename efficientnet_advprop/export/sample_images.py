"""Real images of a run's data, for calibration and verification."""

from collections.abc import Iterator
import contextlib
import functools
import os
from typing import Callable, Optional

import numpy as np
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.data import preprocessing
from efficientnet_advprop.data import records
from efficientnet_advprop.data import sources

_LABELS_FILE = 'labels.txt'

Example = dict[str, tf.Tensor]


def evenly_spaced(
  config: config_lib.Config, split: str, count: int
) -> tf.data.Dataset:
  """Returns evenly spaced images of a split, cropped as for evaluation.

  Args:
    config: of the run.
    split: of the data.
    count: how many; all of them if the split holds fewer.

  Returns:
    A dataset of dictionaries: `encoded`, string []; `image`, float32
    [size, size, 3] in [-1, 1]; `label`, int32 []. Iterating raises
    tf.errors.OpError at a damaged record; `records.explain` tells which.

  Raises:
    DataError: files are missing, or hold an unexpected number of images.
  """
  source = sources.find(config.data, split)
  every = max(1, pipeline.num_images(config, split) // count)
  files = tf.data.Dataset.range(len(source.files))
  if source.labels is not None:  # Each image is a file; class by class.
    found = records.read(source, files.shard(every, 0))
  else:
    found = records.read(source, files).shard(every, 0)

  size = config.model.image_size

  def prepare(record: records.Record) -> Example:
    encoded, shape, label = records.parse(
      source, preprocessing.image_shape, record
    )
    image = preprocessing.evaluation_image(
      encoded, size, config.data.eval_crop_padding, shape
    )
    image = preprocessing.normalize(image)
    return dict(encoded=encoded, image=image, label=label, problem='')

  def fail(
    finding: Callable[[records.Record], tf.Tensor], record: records.Record
  ) -> Example:
    blank = tf.zeros([size, size, 3])
    return dict(encoded='', image=blank, label=0, problem=finding(record))

  def check(example: Example) -> Example:
    problem = example.pop('problem')
    with tf.control_dependencies([records.require(problem == '', problem)]):
      return {name: tf.identity(value) for name, value in example.items()}

  findings = records.findings(source, preprocessing.image_shape)
  failures = [functools.partial(fail, finding) for finding in findings]
  examples = found.take(count).flat_map(
    lambda record: records.attempt(record, prepare, *failures)
  )
  return examples.map(check)


def calibration_images(config: config_lib.Config) -> list[np.ndarray]:
  """Training images from which a converter learns ranges of activations.

  Args:
    config: of the run; `export.calibration_images` says how many.

  Returns:
    float32 [size, size, 3] in [-1, 1].

  Raises:
    DataError: they cannot be read.
  """
  count = config.export.calibration_images
  dataset = evenly_spaced(config, config.data.train_split, count)
  with data_errors():
    return [example['image'] for example in dataset.as_numpy_iterator()]


@contextlib.contextmanager
def data_errors() -> Iterator[None]:
  """Turns what a damaged image causes into a DataError."""
  try:
    yield
  except tf.errors.OpError as error:
    raise records.explain(error) from error


def class_names(config: config_lib.Config) -> Optional[list[str]]:
  """The names of the classes, if the data tells them.

  They are the lines of `labels.txt` in the data's folder, or else the names of
  its class folders.
  """
  directory = sources.data_dir(config.data)
  path = os.path.join(directory, _LABELS_FILE)
  if tf.io.gfile.exists(path):
    with tf.io.gfile.GFile(path) as file:
      return file.read().splitlines()
  source = sources.find(config.data, config.data.eval_split)
  if source.labels is None:
    return None
  folders = {
    label: os.path.basename(os.path.dirname(file))
    for label, file in zip(source.labels, source.files)
  }
  return [folders[label] for label in sorted(folders)]
