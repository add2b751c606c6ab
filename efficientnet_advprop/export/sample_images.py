"""Real images of a run's data, for calibration and verification."""

import numpy as np
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.data import bad_records
from efficientnet_advprop.data import preprocessing
from efficientnet_advprop.data import records
from efficientnet_advprop.data import sources

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
    tf.errors.OpError at a damaged record; `bad_records.explain` says which.

  Raises:
    DataError: files are missing, or hold an unexpected number of images.
  """
  source = sources.find(config.data, split)
  every = max(1, source.size // count)
  files = tf.data.Dataset.range(len(source.files))
  if source.labels is not None:  # Each image is a file; class by class.
    found = records.read(source, files.shard(every, 0))
  else:
    found = records.read(source, files).shard(every, 0)

  def prepare(record: records.Record) -> Example:
    encoded, shape, label = records.parse(
      source, preprocessing.image_shape, record
    )
    image = preprocessing.evaluation_image(
      encoded, config.model.image_size, config.data.eval_crop_padding, shape
    )
    image = preprocessing.normalize(image)
    return dict(encoded=encoded, image=image, label=label, problem='')

  def check(example: Example) -> Example:
    problem = example.pop('problem')
    sound = bad_records.require(problem == '', problem)
    with tf.control_dependencies([sound]):
      return {name: tf.identity(value) for name, value in example.items()}

  found = found.take(count)
  spec = found.map(prepare).element_spec
  failures = bad_records.failures(source, preprocessing.image_shape, spec)
  examples = found.flat_map(
    lambda record: bad_records.first_successful(record, prepare, *failures)
  )
  return examples.map(check)


def calibration_images(config: config_lib.Config) -> list[np.ndarray]:
  """Returns training images from which a converter learns activations' ranges.

  Args:
    config: of the run; `export.calibration_images` says how many.

  Returns:
    float32 [size, size, 3] in [-1, 1].

  Raises:
    DataError: they cannot be read.
  """
  count = config.export.calibration_images
  dataset = evenly_spaced(config, config.data.train_split, count)
  with bad_records.data_errors():
    return [example['image'] for example in dataset.as_numpy_iterator()]
