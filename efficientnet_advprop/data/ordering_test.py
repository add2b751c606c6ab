import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.data import ordering
from efficientnet_advprop.data import sources
from efficientnet_advprop.testing import tiny_data

_COUNTS = {'train': [5, 3, 4, 4, 4], 'validation': [4, 3]}


@pytest.fixture(name='directory', scope='module')
def _directory(tmp_path_factory):
  path = os.fspath(tmp_path_factory.mktemp('shards'))
  for split, counts in _COUNTS.items():
    tiny_data.write_split(path, split, counts)
  return path


def _place(host=0, hosts=1, replicas=1, batch_size=4):
  context = tf.distribute.InputContext(hosts, host, replicas)
  return ordering.place(context, batch_size, 'train.batch_size')


def _numbers(source, stream):
  """Which images come, numbered through all files, and their positions."""
  firsts = np.cumsum([0, *source.counts])
  files = dict(zip(source.files, firsts))
  found = list(stream.as_numpy_iterator())
  numbers = [files[r['file'].decode()] + r['record'] for r in found]
  return numbers, [r['position'] for r in found]


def _training(directory, count, start=0, place=None, seed=5, **data):
  config = tiny_data.config(directory, **data)
  train = dataclasses.replace(config.train, seed=seed)
  config = dataclasses.replace(config, train=train)
  source = sources.find(config.data, 'train')
  stream = ordering.training_order(source, start, place or _place(), config)
  return _numbers(source, stream.take(count))


def test_a_global_batch_is_divided():
  assert _place(1, 2, 4, 24) == ordering.Place(1, 2, 24, 6)
  assert _place(1, 2, 4, 24).host_batch == 12
  assert ordering.place(None, 24, '') == ordering.Place(0, 1, 24, 24)
  with pytest.raises(config_lib.ConfigError, match=r'train\.batch_size: got 4'):
    _place(replicas=3)


@pytest.mark.parametrize('window', [100, 2])
def test_an_order_is_a_function_of_the_seed(directory, window):
  """Every epoch is another shuffle, from the middle on as from the start."""
  data = {'shuffle_window': window}
  numbers, positions = _training(directory, 60, **data)
  assert positions == list(range(60))
  epochs = np.reshape(numbers, [3, 20])
  assert (np.sort(epochs) == np.arange(20)).all()
  assert len({tuple(epoch) for epoch in epochs}) == 3
  assert _training(directory, 36, start=6, **data) == (
    numbers[24:],
    positions[24:],
  )
  assert _training(directory, 20, seed=6, **data)[0] != numbers[:20]


def test_hosts_take_the_rows_of_a_shared_order(directory):
  whole, _ = _training(directory, 24)
  for host in range(2):
    numbers, positions = _training(directory, 8, 2, _place(host, 2, 2))
    rows = [4 * step + 2 * host + row for step in range(2, 6) for row in (0, 1)]
    assert positions == rows
    assert numbers == [whole[row] for row in rows]


def test_hosts_divide_the_files_of_a_large_set(directory):
  streams = []
  for host in range(2):
    place = _place(host, 2, 2)
    numbers, positions = _training(directory, 48, 0, place, shuffle_window=2)
    expected = [4 * s + 2 * host + row for s in range(24) for row in range(2)]
    assert positions == expected
    # Step 11 is in epoch 2 or 3.
    resumed = _training(directory, 26, 11, place, shuffle_window=2)
    assert resumed == (numbers[22:], positions[22:])
    streams.append(numbers)
  # A host's share of an epoch is 8 to 13 images: find where it ends.
  for _ in range(2):
    ends = [
      (a, b)
      for a in range(7, 14)
      for b in range(7, 14)
      if sorted(streams[0][:a] + streams[1][:b]) == list(range(20))
    ]
    assert len(ends) == 1
    streams = [stream[end:] for stream, end in zip(streams, ends[0])]


def test_a_host_without_a_file_is_an_error(directory):
  with pytest.raises(errors.DataError, match='train: 5 files for 6 hosts'):
    _training(directory, 1, 0, _place(0, 6, 6, 6), shuffle_window=2)


def test_evaluation_fills_up_the_last_batch(directory):
  """From the beginning, at positions that do not count."""
  config = tiny_data.config(directory)
  source = sources.find(config.data, 'validation')
  whole, positions = _numbers(
    source, ordering.evaluation_order(source, _place())
  )
  assert sorted(whole[:7]) == list(range(7)) and whole[7] == whole[0]
  assert positions == list(range(8))
  for host, rows in enumerate([[0, 1, 4, 5], [2, 3, 6, 7]]):
    stream = ordering.evaluation_order(source, _place(host, 2, 2))
    assert _numbers(source, stream) == ([whole[row] for row in rows], rows)
