import pytest
import tensorflow as tf

from efficientnet_advprop.testing import reading
from efficientnet_advprop.testing import tiny_data


def test_splits_are_read_by_their_names(tmp_path):
  tiny_data.write_split(str(tmp_path), 'train', [20])
  tiny_data.write_split(str(tmp_path), 'validation', [7])
  config = tiny_data.config(tmp_path)
  (batch,) = reading.training(config).take(1)
  assert batch['image'].shape == [4, 8, 8, 3]
  batches = list(reading.evaluation(config, 'validation'))
  assert sum(float(tf.reduce_sum(batch['weight'])) for batch in batches) == 7


def test_the_error_of_a_missing_split_is_returned(tmp_path):
  config = tiny_data.config(tmp_path)
  assert str(tmp_path) in reading.find_error(config)


def test_data_without_an_error_fail(tmp_path):
  tiny_data.write_split(str(tmp_path), 'train', [20])
  dataset = reading.training(tiny_data.config(tmp_path))
  with pytest.raises(pytest.fail.Exception, match='DID NOT RAISE'):
    reading.read_error(dataset)
  with pytest.raises(pytest.fail.Exception, match='DID NOT RAISE'):
    reading.find_error(tiny_data.config(tmp_path))


def test_an_error_that_is_not_of_the_data_fails():
  dataset = tf.data.Dataset.range(3).map(
    lambda x: tf.debugging.check_numerics(1 / x, 'infinite')
  )
  with pytest.raises(AssertionError):
    reading.read_error(dataset)
