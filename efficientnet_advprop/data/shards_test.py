import json
import os

import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.data import shards
from efficientnet_advprop.data import sources
from efficientnet_advprop.testing import reading
from efficientnet_advprop.testing import tiny_data

pytestmark = pytest.mark.once


def test_shards_are_found_and_counted(tmp_path):
  paths = tiny_data.write_split(tmp_path, 'train', [7, 13])
  tiny_data.write_split(tmp_path, 'train_other', [1])
  source = sources.find(tiny_data.config(tmp_path).data, 'train')
  assert source.files == tuple(paths)
  assert source.counts == (7, 13)


def test_other_names_are_found(tmp_path):
  path = os.fspath(tmp_path / 'train-a.tfrecord')
  tiny_data.write_shard(path, [b''] * 20)
  source = sources.find(tiny_data.config(tmp_path).data, 'train')
  assert (source.files, source.counts) == ((path,), (20,))


def test_a_missing_shard_is_an_error(tmp_path):
  paths = tiny_data.write_split(tmp_path, 'train', [10, 5, 5])
  os.remove(paths[1])
  assert reading.find_error(tiny_data.config(tmp_path)) == (
    f'{tmp_path}: train-00001-of-00003 is missing (2 of 3 shards are there)'
  )


def test_shards_of_two_sets_are_an_error(tmp_path):
  tiny_data.write_split(tmp_path, 'train', [10])
  tiny_data.write_split(tmp_path, 'train', [5, 5])
  assert 'different sets' in reading.find_error(tiny_data.config(tmp_path))


@pytest.mark.parametrize('kept, problem', [
  (-3, 'record 4: the file ends 3 bytes too early'),
  (-10_000, 'record 0: the file ends inside its header'),
])  # fmt: skip
def test_a_cut_shard_is_an_error(tmp_path, kept, problem):
  _, path = tiny_data.write_split(tmp_path, 'train', [15, 5])
  os.truncate(path, max(5, os.path.getsize(path) + kept))
  assert reading.find_error(tiny_data.config(tmp_path)) == f'{path}: {problem}'


def test_a_damaged_header_is_an_error(tmp_path):
  path, _ = tiny_data.write_split(tmp_path, 'train', [15, 5])
  with open(path, 'r+b') as file:
    file.seek(3)  # In the length of record 0.
    file.write(b'\x01')
  message = f'{path}: record 0: its header is damaged'
  assert reading.find_error(tiny_data.config(tmp_path)) == message


@pytest.fixture(name='uncounted')
def _uncounted(monkeypatch):
  monkeypatch.setattr(shards, '_COUNTED_BYTES', 0)


def test_an_uncounted_set_is_read_alike(tmp_path, uncounted, monkeypatch):
  tiny_data.write_split(tmp_path, 'train', [7, 13])
  config = tiny_data.config(tmp_path)
  batches = list(reading.training(config).take(6).as_numpy_iterator())
  monkeypatch.undo()
  counted = list(reading.training(config).take(6).as_numpy_iterator())
  for batch, other in zip(batches, counted):
    assert (batch['image'] == other['image']).all()


@pytest.mark.parametrize('count', [18, 22])
def test_an_uncounted_set_of_another_size_is_an_error(
  tmp_path, uncounted, count
):
  tiny_data.write_split(tmp_path, 'train', [10, count - 10])
  dataset = reading.training(tiny_data.config(tmp_path))
  assert reading.read_error(dataset) == (
    'train: the split holds more or fewer images than the configuration says'
  )


def test_an_uncounted_cut_shard_is_an_error(tmp_path, uncounted):
  path, _ = tiny_data.write_split(tmp_path, 'train', [10, 10])
  os.truncate(path, os.path.getsize(path) - 3)
  dataset = reading.training(tiny_data.config(tmp_path))
  assert reading.read_error(dataset).startswith(f'{path}: record 9: damaged or')


def test_hosts_divide_an_uncounted_set(tmp_path, uncounted):
  tiny_data.write_split(tmp_path, 'train', [5, 5, 5, 5])
  config = tiny_data.config(tmp_path, shuffle_window=2)
  seen = []
  for host in range(2):
    context = tf.distribute.InputContext(2, host, 2)
    dataset = reading.training(config, 5, context)
    for batch in dataset.take(5).as_numpy_iterator():
      seen += tiny_data.indices(batch['image'])
  assert sorted(seen) == list(range(20))


def _write_manifest(directory, paths, counts):
  shards = {
    str(number): {'bytes': os.path.getsize(path), 'written': count}
    for number, (path, count) in enumerate(zip(paths, counts))
  }
  manifest = directory / 'train.manifest.json'
  manifest.write_text(json.dumps({'settings': {}, 'shards': shards}))
  return manifest


def test_hosts_divide_a_set_of_which_the_manifest_tells_the_counts(
  tmp_path, uncounted
):
  counts = [3, 7, 4, 6]
  paths = tiny_data.write_split(tmp_path, 'train', counts)
  config = tiny_data.config(tmp_path, shuffle_window=2)
  _write_manifest(tmp_path, paths, counts)
  assert sources.find(config.data, 'train').counts == tuple(counts)
  seen = []
  for host in range(2):
    context = tf.distribute.InputContext(2, host, 2)
    dataset = reading.training(config, 0, context).unbatch()
    images = [b['image'] for b in dataset.take(13).as_numpy_iterator()]
    seen.append(tiny_data.indices(images))
  # Hosts' shares of an epoch differ; each image is in one of them, once.
  assert any(
    sorted(seen[0][:end] + seen[1][: 20 - end]) == list(range(20))
    for end in range(7, 14)
  )


def test_a_manifest_that_is_not_of_the_files_is_an_error(tmp_path, uncounted):
  paths = tiny_data.write_split(tmp_path, 'train', [10, 10])
  manifest = _write_manifest(tmp_path, paths, [10, 10])
  config = tiny_data.config(tmp_path)
  size = os.path.getsize(paths[1])
  os.truncate(paths[1], size - 3)
  assert reading.find_error(config) == (
    f'{paths[1]}: {size - 3} bytes, its manifest says {size} (cut short?)'
  )
  allowed = tiny_data.config(tmp_path, max_bad_records=1)
  assert sources.find(allowed.data, 'train').counts == (10, 10)
  _write_manifest(tmp_path, paths[:1], [10])
  assert reading.find_error(config).startswith(
    f'{manifest}: 1 of 2 shards are written'
  )
  manifest.write_text('{')
  assert reading.find_error(config) == f'{manifest}: damaged'


def test_minival_is_held_out(tmp_path):
  tiny_data.write_split(tmp_path, 'train', [4, 4, 6, 6])
  config = tiny_data.config(tmp_path, 7, minival_shards=2, eval_split='minival')
  train = reading.training(config).take(4).as_numpy_iterator()
  seen = [i for batch in train for i in tiny_data.indices(batch['image'])]
  assert sorted(seen[:12]) == list(range(8, 20))
  minival = reading.evaluation(config, 'minival').as_numpy_iterator()
  seen = [i for batch in minival for i in tiny_data.indices(batch['image'])]
  assert seen == [0, 4, 1, 5, 2, 6, 3, 7]  # Two files side by side.


def test_too_large_a_minival_is_an_error(tmp_path):
  tiny_data.write_split(tmp_path, 'train', [10, 10])
  config = tiny_data.config(tmp_path, minival_shards=2)
  with pytest.raises(config_lib.ConfigError, match=r'data\.minival_shards'):
    sources.find(config.data, 'train')
