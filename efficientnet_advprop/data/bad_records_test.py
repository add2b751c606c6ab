import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.base import errors
from efficientnet_advprop.data import bad_records
from efficientnet_advprop.testing import reading
from efficientnet_advprop.testing import tiny_data


def _batches(dataset, count):
  return list(dataset.take(count).as_numpy_iterator())


def _joined(batches, key='image'):
  return np.concatenate([batch[key] for batch in batches])


def _indices(batches):
  return tiny_data.indices(_joined(batches))


def test_first_successful_takes_the_first_that_works():
  def fail_below(limit):
    def check(value):
      stop = tf.debugging.Assert(value >= limit, [value])
      with tf.control_dependencies([stop]):
        return tf.fill([], limit)

    return check

  stages = [fail_below(limit) for limit in (20, 10, 0)]
  dataset = tf.data.Dataset.from_tensor_slices([15, 25, 5])
  dataset = dataset.flat_map(
    lambda value: bad_records.first_successful(value, *stages)
  )
  assert list(dataset.as_numpy_iterator()) == [10, 20, 0]


def test_explanation_is_the_problem_unescaped():
  problem = 'folder "ü\\"/it\'s: record 3: the label 0 is not in 1..3'

  @tf.function
  def fail(condition):
    with tf.control_dependencies([bad_records.require(condition, problem)]):
      return tf.constant(0)

  with pytest.raises(tf.errors.InvalidArgumentError) as caught:
    fail(tf.constant(False))
  explained = bad_records.explain(caught.value)
  assert isinstance(explained, errors.DataError)
  assert str(explained) == problem


def _training_error(config):
  return reading.read_error(reading.training(config))


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
  batches = _batches(reading.evaluation(config, 'train'), 9)
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
    list(reading.evaluation(config, 'train'))
  assert str(bad_records.explain(caught.value)).startswith(expected)


@pytest.mark.once
def test_allowed_bad_records_are_replaced_and_reported(tmp_path, capfd):
  bad, message = BAD['label_4']
  path = _shard_with(tmp_path, bad)
  config = tiny_data.config(tmp_path, max_bad_records=1)
  batches = _batches(reading.training(config), 5)
  assert f'Bad record: {path}: record 4: {message}' in capfd.readouterr().err
  numbers = _indices(batches)
  assert set(range(20)) - set(numbers) == {4}
  np.testing.assert_array_equal(
    _joined(batches, 'label'), np.array(numbers) % 3
  )
  # Nothing else moves: the others keep their places and seeds.
  tiny_data.write_split(tmp_path, 'train', [20])
  good = _batches(reading.training(config), 5)
  differing = np.array(numbers) != _indices(good)
  assert np.array(_indices(good))[differing].tolist() == [4]
  np.testing.assert_array_equal(_joined(batches, 'seed'), _joined(good, 'seed'))


@pytest.mark.once
def test_more_bad_records_than_allowed_stop_training(tmp_path):
  _shard_with(tmp_path, BAD['label_4'][0])
  config = tiny_data.config(tmp_path, max_bad_records=1)
  with pytest.raises(tf.errors.OpError) as caught:
    _batches(reading.training(config), 10)  # Met again in epoch two.
  message = str(bad_records.explain(caught.value))
  assert message.endswith('not in 1..3 (data.max_bad_records=1)')


@pytest.mark.once
def test_allowed_bad_records_weigh_nothing_in_evaluation(tmp_path):
  _shard_with(tmp_path, BAD['cut_jpeg'][0])
  config = tiny_data.config(tmp_path, max_bad_records=1)
  batches = list(reading.evaluation(config, 'train').as_numpy_iterator())
  weights = np.ones(20)
  weights[4] = 0
  np.testing.assert_array_equal(_joined(batches, 'weight'), weights)


@pytest.mark.once
def test_a_batch_of_bad_records_only_stops_training(tmp_path):
  bad = tiny_data.example(_JPEG, 4)
  tiny_data.write_shard(tmp_path / 'train-00000-of-00001', [bad] * 20)
  config = tiny_data.config(tmp_path, max_bad_records=20)
  assert 'no record of a whole batch can be used' in _training_error(config)


def test_other_errors_are_left_alone():
  error = tf.errors.InternalError(None, None, 'something else')
  assert bad_records.explain(error) is error
