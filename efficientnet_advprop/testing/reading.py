"""Reads the splits of a run's data in tests, and the errors of doing so."""

import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.data import bad_records
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.data import sources


def training(
  config: config_lib.Config, *args: object, **options: object
) -> tf.data.Dataset:
  """Batches of the training split; see `pipeline.train_dataset`."""
  source = sources.find(config.data, config.data.train_split)
  return pipeline.train_dataset(config, source, *args, **options)


def evaluation(
  config: config_lib.Config, split: str, *args: object, **options: object
) -> tf.data.Dataset:
  """Batches of an evaluation split; see `pipeline.eval_dataset`."""
  source = sources.find(config.data, split)
  return pipeline.eval_dataset(config, source, *args, **options)


def find_error(config: config_lib.Config, split: str = 'train') -> str:
  """The one line that says why a split is not found."""
  with pytest.raises(errors.DataError) as caught:
    sources.find(config.data, split)
  assert '\n' not in str(caught.value)
  return str(caught.value)


def read_error(dataset: tf.data.Dataset) -> str:
  """The one line that reading the first ten batches ends with."""
  with pytest.raises(tf.errors.OpError) as caught:
    list(dataset.take(10))
  error = bad_records.explain(caught.value)
  assert isinstance(error, errors.DataError), error
  assert '\n' not in str(error)
  return str(error)
