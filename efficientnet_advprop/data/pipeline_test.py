import dataclasses
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.data import records
from efficientnet_advprop.testing import tiny_data


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
  dataset = pipeline.train_dataset(tiny_data.config(directory))
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
    window: (config, _batches(pipeline.train_dataset(config), 10))
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
    _assert_same(batches, _batches(pipeline.train_dataset(config), 10))


@pytest.mark.parametrize('window', [100, 6])
def test_resumed_stream_is_the_tail_of_the_whole(wholes, window):
  config, batches = wholes[window]
  resumed = pipeline.train_dataset(config, start_step=4)
  _assert_same(batches[4:], _batches(resumed, 6))


def test_replicas_divide_the_global_batch(wholes):
  config, one = wholes[100]
  context = _context(replicas=2)
  two = _batches(pipeline.train_dataset(config, 0, context), 20)
  for key in 'image', 'label', 'seed':
    np.testing.assert_array_equal(_joined(one, key), _joined(two, key))


def test_hosts_share_the_order_of_a_small_set(wholes):
  config, whole = wholes[100]
  whole = whole[2:5]
  hosts = [
    _batches(pipeline.train_dataset(config, 2, _context(i, 2, 4)), 6)
    for i in range(2)
  ]
  rows = [batch for step in range(3) for host in hosts
          for batch in host[2 * step : 2 * step + 2]]  # fmt: skip
  for key in 'image', 'label', 'seed':
    np.testing.assert_array_equal(_joined(whole, key), _joined(rows, key))


def test_indivisible_batch_is_an_error(directory):
  config = tiny_data.config(directory)
  with pytest.raises(config_lib.ConfigError, match=r'train\.batch_size: got 4'):
    pipeline.train_dataset(config, 0, _context(replicas=3))
  with pytest.raises(config_lib.ConfigError, match=r'eval\.batch_size: got 4'):
    pipeline.eval_dataset(config, 'validation', _context(replicas=3))


@pytest.mark.parametrize(
  'hosts, replicas, split', [(1, 1, 'validation'), (1, 2, 'stylized'),
                             (2, 4, 'validation')]
)  # fmt: skip
def test_evaluation_counts_each_once(directory, hosts, replicas, split):
  config = tiny_data.config(directory)
  count = {'validation': 7, 'stylized': 3}[split]
  assert pipeline.num_images(config, split) == count
  seen, lengths = [], set()
  for host in range(hosts):
    context = _context(host, hosts, replicas)
    dataset = pipeline.eval_dataset(config, split, context)
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
  dataset = pipeline.eval_dataset(config, 'validation', batch_size=7)
  assert [batch['weight'].sum() for batch in _batches(dataset, 9)] == [7]


def test_two_views_share_the_crop(wholes):
  config, plain = wholes[100]
  data = dataclasses.replace(config.data, augmentation='autoaugment')
  config = dataclasses.replace(config, data=data)
  both = _batches(pipeline.train_dataset(config, two_views=True), 2)
  np.testing.assert_array_equal(_joined(both), _joined(plain[:2]))
  augmented = _batches(pipeline.train_dataset(config), 2)
  views = _joined(both, 'augmented_image')
  np.testing.assert_array_equal(views, _joined(augmented))
  assert (views != _joined(both)).any()


# --- Bad records ------------------------------------------------------------


def _training_error(config):
  """The one line that training on broken data ends with."""
  with pytest.raises(tf.errors.OpError) as caught:
    _batches(pipeline.train_dataset(config), 5)
  error = records.explain(caught.value)
  assert isinstance(error, errors.DataError), error
  assert '\n' not in str(error)
  return str(error)


def _shard_with(directory, bad, place=4):
  examples = [
    tiny_data.example(tiny_data.encoded_image(i), i % 3 + 1) for i in range(20)
  ]
  examples[place] = bad
  path = os.path.join(directory, 'train-00000-of-00001')
  tiny_data.write_shard(path, examples)
  return path


_JPEG = tf.io.encode_jpeg(np.zeros([64, 64, 3], np.uint8)).numpy()
_HUGE_PNG = (
  b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR' + (20_000).to_bytes(4, 'big') * 2 + b'\x08'
)
BAD = {
  'label_0': (
    tiny_data.example(_JPEG, 0), 'the label 0 is not in 1..3',
  ),
  'label_4': (
    tiny_data.example(_JPEG, 4), 'the label 4 is not in 1..3',
  ),
  'cut_jpeg': (
    tiny_data.example(_JPEG[: len(_JPEG) // 2], 1),
    'the image cannot be decoded (3',
  ),
  'no_jpeg': (
    tiny_data.example(b'\xff\xd8\xffnothing', 1),
    'the image cannot be decoded (10 bytes)',
  ),
  'one_pixel': (
    tiny_data.example(tiny_data.encoded_image(4, 1, 1), 1),
    'the image has 1 x 1 pixels; 8 to 16384 a side are allowed',
  ),
  'huge': (
    tiny_data.example(_HUGE_PNG, 1),
    'the image has 20000 x 20000 pixels; 8 to 16384 a side',
  ),
  'empty': (tiny_data.example(b'', 1), 'it holds no image'),
  'no_example': (
    b'\xff\xff', 'not a tf.Example of an image and its label',
  ),
}  # fmt: skip


def test_every_kind_of_bad_record_is_told(tmp_path, capfd):
  path = os.path.join(tmp_path, 'train-00000-of-00001')
  tiny_data.write_shard(path, [bad for bad, _ in BAD.values()])
  count = len(BAD)
  config = tiny_data.config(
    tmp_path, num_train_images=count, max_bad_records=count
  )
  batches = _batches(pipeline.eval_dataset(config, 'train'), 9)
  assert _joined(batches, 'weight').sum() == 0
  lines = capfd.readouterr().err.splitlines()
  lines = [line for line in lines if line.startswith('Bad record: ')]
  assert len(lines) == count
  for index, (line, (_, message)) in enumerate(zip(lines, BAD.values())):
    assert line.startswith(f'Bad record: {path}: record {index}: {message}')


def test_a_bad_record_stops_training(tmp_path):
  path = _shard_with(tmp_path, BAD['label_4'][0])
  error = _training_error(tiny_data.config(tmp_path))
  assert error == f'{path}: record 4: the label 4 is not in 1..3'


def test_a_flipped_bit_stops_training_and_evaluation(tmp_path):
  folder = tmp_path / "it's nützlich"
  folder.mkdir()
  path = _shard_with(folder, tiny_data.example(_JPEG, 1))
  content = bytearray(pathlib.Path(path).read_bytes())
  content[content.index(_JPEG) + 50] ^= 1
  pathlib.Path(path).write_bytes(content)
  expected = f'{path}: record 4: damaged or missing'
  config = tiny_data.config(folder)
  assert _training_error(config).startswith(expected)
  with pytest.raises(tf.errors.OpError) as caught:
    list(pipeline.eval_dataset(config, 'train'))
  assert str(records.explain(caught.value)).startswith(expected)


def test_allowed_bad_records_are_replaced_and_reported(tmp_path, capfd):
  bad, message = BAD['label_4']
  path = _shard_with(tmp_path, bad)
  config = tiny_data.config(tmp_path, max_bad_records=1)
  batches = _batches(pipeline.train_dataset(config), 5)
  assert f'Bad record: {path}: record 4: {message}' in capfd.readouterr().err
  numbers = _indices(batches)
  assert set(range(20)) - set(numbers) == {4}
  np.testing.assert_array_equal(
    _joined(batches, 'label'), np.array(numbers) % 3
  )
  # Nothing else moves: the others keep their places and seeds.
  tiny_data.write_split(tmp_path, 'train', [20])
  good = _batches(pipeline.train_dataset(config), 5)
  differing = np.array(numbers) != _indices(good)
  assert np.array(_indices(good))[differing].tolist() == [4]
  np.testing.assert_array_equal(_joined(batches, 'seed'), _joined(good, 'seed'))


def test_more_bad_records_than_allowed_stop_training(tmp_path):
  _shard_with(tmp_path, BAD['label_4'][0])
  config = tiny_data.config(tmp_path, max_bad_records=1)
  with pytest.raises(tf.errors.OpError) as caught:
    _batches(pipeline.train_dataset(config), 10)  # Met again in epoch two.
  message = str(records.explain(caught.value))
  assert message.endswith('not in 1..3 (data.max_bad_records=1)')


def test_allowed_bad_records_weigh_nothing_in_evaluation(tmp_path):
  _shard_with(tmp_path, BAD['cut_jpeg'][0])
  config = tiny_data.config(tmp_path, max_bad_records=1)
  batches = list(pipeline.eval_dataset(config, 'train').as_numpy_iterator())
  weights = np.ones(20)
  weights[4] = 0
  np.testing.assert_array_equal(_joined(batches, 'weight'), weights)


def test_a_batch_of_bad_records_only_stops_training(tmp_path):
  bad = tiny_data.example(_JPEG, 4)
  tiny_data.write_shard(tmp_path / 'train-00000-of-00001', [bad] * 20)
  config = tiny_data.config(tmp_path, max_bad_records=20)
  assert 'no record of a whole batch can be used' in _training_error(config)


def test_other_errors_are_left_alone():
  error = tf.errors.InternalError(None, None, 'something else')
  assert records.explain(error) is error
