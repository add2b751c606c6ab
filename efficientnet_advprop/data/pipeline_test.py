import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.data import sources
from efficientnet_advprop.testing import reading
from efficientnet_advprop.testing import tiny_data

pytestmark = pytest.mark.once


@pytest.fixture(name='directory', scope='module')
def _directory(tmp_path_factory):
  path = os.fspath(tmp_path_factory.mktemp('shards'))
  tiny_data.write_split(path, 'train', [4, 4, 4, 4, 4])
  tiny_data.write_split(path, 'validation', [4, 3])
  tiny_data.write_split(path, 'stylized', [2, 1])
  return path


def _context(host=0, hosts=1, replicas=1):
  return tf.distribute.InputContext(hosts, host, replicas)


def _batches(dataset, count):
  return list(dataset.take(count).as_numpy_iterator())


def _assert_same(batches, others):
  assert len(batches) == len(others)
  for batch, other in zip(batches, others):
    assert set(batch) == set(other)
    for key in batch:
      np.testing.assert_array_equal(batch[key], other[key])


def _joined(batches, key='image'):
  return np.concatenate([batch[key] for batch in batches])


def _indices(batches):
  return tiny_data.indices(_joined(batches))


def test_training_batches_have_static_shapes(directory):
  """Without an end, or several workers would take the shapes for unknown."""
  dataset = reading.training(tiny_data.config(directory))
  assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
  assert dataset.element_spec == {
    'image': tf.TensorSpec([4, 8, 8, 3], tf.float32),
    'label': tf.TensorSpec([4], tf.int32),
    'seed': tf.TensorSpec([4, 2], tf.int32),
  }


@pytest.fixture(name='wholes', scope='module')
def _wholes(directory):
  """The first 10 batches of 8, so of 4 epochs, shuffled by either window."""
  configs = {
    window: tiny_data.config(directory, 8, shuffle_window=window)
    for window in (100, 6)
  }
  return {
    window: (config, _batches(reading.training(config), 10))
    for window, config in configs.items()
  }


@pytest.mark.parametrize('window', [100, 6])
def test_each_image_comes_once_an_epoch(wholes, window):
  _, batches = wholes[window]
  epochs = np.reshape(_indices(batches), [4, 20])
  assert (np.sort(epochs) == np.arange(20)).all()
  assert len({tuple(epoch) for epoch in epochs}) == 4
  labels = _joined(batches, 'label')
  np.testing.assert_array_equal(labels, np.ravel(epochs) % 3)
  seeds = _joined(batches, 'seed')
  np.testing.assert_array_equal(seeds, [[5, i] for i in range(80)])


def test_crops_differ_between_epochs(wholes):
  _, batches = wholes[100]
  images, numbers = _joined(batches), np.array(_indices(batches))
  views = images[numbers == 7]
  assert len(views) == 4
  assert len({view.tobytes() for view in views}) == 4


def test_order_ignores_parallelism_and_global_seed(wholes, monkeypatch):
  config, batches = wholes[6]
  tf.random.set_seed(123)
  for parallel in 1, 4:
    monkeypatch.setattr(tf.data, 'AUTOTUNE', parallel)
    _assert_same(batches, _batches(reading.training(config), 10))


@pytest.mark.parametrize('window', [100, 6])
def test_resumed_stream_is_the_tail_of_the_whole(wholes, window):
  config, batches = wholes[window]
  resumed = reading.training(config, start_step=4)
  _assert_same(batches[4:], _batches(resumed, 6))


def test_replicas_divide_the_global_batch(wholes):
  config, one = wholes[100]
  context = _context(replicas=2)
  two = _batches(reading.training(config, 0, context), 20)
  for key in 'image', 'label', 'seed':
    np.testing.assert_array_equal(_joined(one, key), _joined(two, key))


def test_hosts_share_the_order_of_a_small_set(wholes):
  config, whole = wholes[100]
  whole = whole[2:5]
  hosts = [
    _batches(reading.training(config, 2, _context(i, 2, 4)), 6)
    for i in range(2)
  ]
  rows = [batch for step in range(3) for host in hosts
          for batch in host[2 * step : 2 * step + 2]]  # fmt: skip
  for key in 'image', 'label', 'seed':
    np.testing.assert_array_equal(_joined(whole, key), _joined(rows, key))


def test_indivisible_batch_is_an_error(directory):
  config = tiny_data.config(directory)
  with pytest.raises(config_lib.ConfigError, match=r'train\.batch_size: got 4'):
    reading.training(config, 0, _context(replicas=3))
  with pytest.raises(config_lib.ConfigError, match=r'eval\.batch_size: got 4'):
    reading.evaluation(config, 'validation', _context(replicas=3))


@pytest.mark.parametrize(
  'hosts, replicas, split', [(1, 1, 'validation'), (1, 2, 'stylized'),
                             (2, 4, 'validation')]
)  # fmt: skip
def test_evaluation_counts_each_once(directory, hosts, replicas, split):
  config = tiny_data.config(directory)
  count = {'validation': 7, 'stylized': 3}[split]
  assert sources.find(config.data, split).size == count
  seen, lengths = [], set()
  for host in range(hosts):
    context = _context(host, hosts, replicas)
    dataset = reading.evaluation(config, split, context)
    assert dataset.element_spec['image'].shape == [4 // replicas, 8, 8, 3]
    batches = list(dataset.as_numpy_iterator())
    lengths.add(len(batches))
    counted = _joined(batches, 'weight') == 1
    assert set(_joined(batches, 'weight')) <= {0, 1}
    numbers = np.array(_indices(batches))[counted]
    labels = _joined(batches, 'label')[counted]
    np.testing.assert_array_equal(labels, numbers % 3)
    seen += numbers.tolist()
  assert sorted(seen) == list(range(count))
  assert len(lengths) == 1


def test_evaluation_batch_size_can_be_given(directory):
  config = tiny_data.config(directory)
  dataset = reading.evaluation(config, 'validation', batch_size=7)
  assert [batch['weight'].sum() for batch in _batches(dataset, 9)] == [7]


def test_two_views_share_the_crop(wholes):
  config, plain = wholes[100]
  data = dataclasses.replace(config.data, augmentation='autoaugment')
  config = dataclasses.replace(config, data=data)
  both = _batches(reading.training(config, two_views=True), 2)
  np.testing.assert_array_equal(_joined(both), _joined(plain[:2]))
  augmented = _batches(reading.training(config), 2)
  views = _joined(both, 'augmented_image')
  np.testing.assert_array_equal(views, _joined(augmented))
  assert (views != _joined(both)).any()
