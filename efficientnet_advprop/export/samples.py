"""Real images of a run's data, for calibration and verification."""

import os
from typing import Optional

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.data import preprocessing
from efficientnet_advprop.data import records
from efficientnet_advprop.data import sources

_LABELS_FILE = 'labels.txt'


def samples(
  config: config_lib.Config, split: str, count: int
) -> tf.data.Dataset:
  """Images from all over a split, cropped as for evaluation.

  Args:
    config: of the run.
    split: of the data.
    count: how many; all of them if the split holds fewer.

  Returns:
    A dataset of dictionaries: `encoded`, string []; `image`, float32
    [size, size, 3] in [-1, 1]; `label`, int32 []. Iterating raises
    tf.errors.OpError at an image that does not decode.

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

  def prepare(record: records.Record) -> dict[str, tf.Tensor]:
    encoded, shape, label = records.parse(
      source, preprocessing.image_shape, record
    )
    image = preprocessing.evaluation_image(
      encoded, config.model.image_size, config.data.eval_crop_padding, shape
    )
    image = preprocessing.normalize(image)
    return dict(encoded=encoded, image=image, label=label)

  return found.take(count).map(prepare)


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
