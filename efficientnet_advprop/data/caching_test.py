import collections
import dataclasses
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import locks
from efficientnet_advprop.base import memory
from efficientnet_advprop.data import bad_records
from efficientnet_advprop.data import caching
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.data import preprocessing
from efficientnet_advprop.data import sources
from efficientnet_advprop.testing import tiny_data

pytestmark = pytest.mark.once


@pytest.fixture(name='shards', scope='module')
def _shards(tmp_path_factory):
  path = os.fspath(tmp_path_factory.mktemp('shards'))
  tiny_data.write_split(path, 'train', [4, 3, 6, 4, 3])
  tiny_data.write_split(path, 'validation', [4, 3])
  return path


@pytest.fixture(name='folders', scope='module')
def _folders(tmp_path_factory):
  path = os.fspath(tmp_path_factory.mktemp('folders'))
  tiny_data.write_class_folders(path, {'train': 20, 'validation': 7})
  return path


@pytest.fixture(name='decodings')
def _decodings(monkeypatch):
  """Counts how often each split is decoded for the cache."""
  counts = collections.Counter()
  decode = caching._decoded

  def counted(source, make):
    counts[source.name] += 1
    return decode(source, make)

  monkeypatch.setattr(caching, '_decoded', counted)
  return counts


def _found(config):
  return sources.find(config.data, config.data.train_split)


def _cached(config):
  return caching.training(config, _found(config)).cache


def _training(config, *args, **options):
  source = caching.training(config, _found(config))
  return pipeline.train_dataset(config, source, *args, **options)


def _evaluation(config):
  source = sources.find(config.data, config.data.eval_split)
  return pipeline.eval_dataset(config, caching.evaluation(config, source))


def _with(config, **data):
  return dataclasses.replace(
    config, data=dataclasses.replace(config.data, **data)
  )


def _assert_same(dataset, other, count):
  batches = list(dataset.take(count).as_numpy_iterator())
  others = list(other.take(count).as_numpy_iterator())
  assert len(batches) == len(others) > 0
  for batch, other_batch in zip(batches, others):
    assert set(batch) == set(other_batch)
    for key in batch:
      np.testing.assert_array_equal(batch[key], other_batch[key])


def _error(config):
  with pytest.raises(errors.DataError) as caught:
    _cached(config)
  assert '\n' not in str(caught.value)
  return str(caught.value)


# --- The same batches -------------------------------------------------------


@pytest.mark.parametrize('window, kind', [(100, 'memory'), (6, 'folder')])
def test_training_batches_are_those_without_a_cache(
  shards, tmp_path, window, kind
):
  place = 'memory' if kind == 'memory' else os.fspath(tmp_path)
  config = tiny_data.config(shards, 8, shuffle_window=window)
  cached = _with(config, cache=place)
  plain = _training(config)
  _assert_same(_training(cached), plain, 8)
  # A run that resumes in the middle of the second epoch.
  _assert_same(_training(cached, 4), plain.skip(4), 3)


def test_hosts_take_their_own_parts(shards):
  config = tiny_data.config(shards, 8, shuffle_window=6)
  cached = _with(config, cache='memory')
  context = tf.distribute.InputContext(2, 1, 4)
  _assert_same(_training(cached, 2, context), _training(config, 2, context), 8)


def test_class_folders_are_cached(folders):
  config = tiny_data.config(folders)
  _assert_same(_training(_with(config, cache='memory')), _training(config), 6)


def test_evaluation_batches_are_those_without_a_cache():
  """The embedded images are JPEGs whose colours are stored at half size."""
  data = {'num_classes': 10, 'num_eval_images': 500}
  config = config_lib.from_dict(
    {
      'model': {'image_size': 24},
      'data': data,
      'train': {'batch_size': 16},
      'eval': {'batch_size': 192},
    }
  )
  cached = _with(config, cache='memory')
  _assert_same(_evaluation(cached), _evaluation(config), 9)


def _jpeg(pixels, subsampling):
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(
    buffer, 'JPEG', quality=90, subsampling=subsampling
  )
  return buffer.getvalue()


@pytest.mark.parametrize('subsampling', ['4:4:4', '4:2:0'])
def test_a_crop_of_a_jpeg_differs_at_most_at_its_border(tmp_path, subsampling):
  """The decoder of a crop does not see the colours beyond its border."""
  rng = np.random.default_rng(0)
  coarse = rng.integers(0, 256, [9, 11, 3], np.uint8)
  pixels = np.asarray(Image.fromarray(coarse).resize((83, 61)))
  encoded = _jpeg(pixels, subsampling)
  tiny_data.write_shard(
    tmp_path / 'train-00000-of-00001', [tiny_data.example(encoded, 1)]
  )
  config = tiny_data.config(tmp_path, 1, num_train_images=1, cache='memory')
  store = _cached(config)
  assert store.shape(0).numpy().tolist() == [61, 83, 3]
  differing = 0
  for _ in range(40):
    height, width = rng.integers(8, 61), rng.integers(8, 83)
    box = rng.integers(61 - height), rng.integers(83 - width), height, width
    box = tf.constant(box, tf.int32)
    crop = store.crop(tf.constant(0, tf.int64), box).numpy()
    alone = preprocessing.decode_and_crop(encoded, box).numpy()
    assert crop.shape == (height, width, 3)
    np.testing.assert_array_equal(crop[1:-1, 1:-1], alone[1:-1, 1:-1])
    differing += int((crop != alone).any())
  assert bool(differing) == (subsampling == '4:2:0')


def test_large_images_are_reduced_by_means_of_areas(tmp_path):
  large = np.random.default_rng(0).integers(0, 256, [32, 48, 3], np.uint8)
  small = large[:12, :20]
  examples = [
    tiny_data.example(tf.io.encode_png(pixels).numpy(), 1)
    for pixels in (large, small)
  ]
  tiny_data.write_shard(tmp_path / 'train-00000-of-00001', examples)
  options = {'num_train_images': 2, 'cache': 'memory', 'cache_short_side': 16}
  config = tiny_data.config(tmp_path, 2, **options)
  store = _cached(config)

  def image(number):
    box = tf.concat([[0, 0], store.shape(number)[:2]], 0)
    return store.crop(tf.constant(number, tf.int64), box).numpy()

  means = large.reshape([16, 2, 24, 2, 3]).mean((1, 3))
  np.testing.assert_array_equal(image(0), np.round(means))  # Half to even.
  np.testing.assert_array_equal(image(1), small)
  # Evaluation takes the images as they are stored.
  config = _with(config, eval_split='train', num_eval_images=2)
  plain = _with(config, cache=None, cache_short_side=None)
  _assert_same(_evaluation(config), _evaluation(plain), 9)


# --- Bad records ------------------------------------------------------------


@pytest.fixture(name='damaged')
def _damaged(tmp_path):
  """Five images, of which record 1 has a wrong label and 3 is no image."""
  examples = [
    tiny_data.example(tiny_data.encoded_image(i), 9 if i == 1 else 1)
    for i in range(5)
  ]
  examples[3] = tiny_data.example(b'\xff\xd8\xff no JPEG', 1)
  tiny_data.write_shard(tmp_path / 'train-00000-of-00001', examples)
  return os.fspath(tmp_path)


def test_bad_records_are_named_as_without_a_cache(damaged, tmp_path):
  place = os.fspath(tmp_path / 'cache')
  config = tiny_data.config(damaged, 5, num_train_images=5, cache=place)
  (path,) = _found(config).files
  label = f'{path}: record 1: the label 9 is not in 1..3'
  assert _error(config) == label
  # Of two epochs they are four.
  lenient = _with(config, max_bad_records=4)
  dataset = _training(lenient)
  _assert_same(dataset, _training(_with(lenient, cache=None)), 2)
  with pytest.raises(tf.errors.OpError) as caught:
    list(dataset.take(3))
  problem = str(bad_records.explain(caught.value))
  assert re.fullmatch(f'{path}: record [13]: .*max_bad_records=4\\)', problem)
  # What more lenient settings wrote is refused all the same.
  assert _error(config) == label
  suffix = ' (data.max_bad_records=1)'
  assert _error(_with(config, max_bad_records=1)) == label + suffix


# --- Space ------------------------------------------------------------------


def test_images_that_do_not_fit_are_one_line(shards, tmp_path, monkeypatch):
  decoded = 20 * 12 * 12 * 3
  config = tiny_data.config(shards)
  usage = collections.namedtuple('usage', 'free')
  monkeypatch.setattr(caching, '_SAMPLE', 1)
  monkeypatch.setattr(memory, 'free_bytes', lambda: 2000)
  monkeypatch.setattr(memory, 'format_bytes', lambda count: f'{count:.0f} B')
  message = _error(_with(config, cache='memory'))
  first = 16 * 12 * 12 * 3  # What the first chunk takes is not free any more.
  assert message.startswith(
    f"data.cache=memory: 20 decoded images of 'train' take about {decoded} B,"
    f' and {2000 + first} B of memory are free'
  )
  # The last 4 images take 1728 bytes.
  monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage(1700))
  place = os.fspath(tmp_path / 'cache')
  message = _error(_with(config, cache=place))
  assert message.startswith(f"data.cache={place}: 20 decoded images of 'train'")
  assert 'on that disk are free' in message
  assert os.listdir(place) == [locks.FILE]


def test_a_folder_that_cannot_be_is_one_line(shards, tmp_path):
  (tmp_path / 'file').write_text('')
  place = os.fspath(tmp_path / 'file' / 'cache')
  config = tiny_data.config(shards, cache=place)
  assert _error(config) == f'data.cache={place}: Not a directory'


def test_uncounted_images_are_refused(shards):
  config = tiny_data.config(shards, cache='memory')
  source = dataclasses.replace(_found(config), counts=None)
  with pytest.raises(errors.DataError, match="'train' are not counted; tools"):
    caching.training(config, source)


# --- The folder -------------------------------------------------------------


def test_a_folder_is_written_once_for_the_same_images(
  tmp_path, decodings, caplog
):
  data = os.fspath(tmp_path / 'data')
  os.mkdir(data)
  tiny_data.write_split(data, 'train', [10, 10])
  place = tmp_path / 'cache'
  config = tiny_data.config(data, cache=os.fspath(place))
  first = _cached(config)
  # What is done to a cached image later does not matter.
  _cached(_with(config, augmentation='randaugment', min_crop_area=0.5))
  assert decodings['train'] == 1
  _cached(_with(config, cache_short_side=8))
  assert decodings['train'] == 2
  # Other images under the same names.
  tiny_data.write_split(data, 'train', [11, 9])
  second = _cached(config)
  assert decodings['train'] == 3
  assert len(os.listdir(place)) == 4  # With the lock.
  assert first.shape(0).numpy().tolist() == [12, 12, 3]  # Still mapped.
  assert second.shape(0).numpy().tolist() == [12, 12, 3]


def test_a_damaged_folder_is_written_again(shards, tmp_path, caplog):
  config = tiny_data.config(shards, cache=os.fspath(tmp_path))
  _cached(config)
  (folder,) = {*os.listdir(tmp_path)} - {locks.FILE}
  os.truncate(tmp_path / folder / 'images', 100)
  with caplog.at_level('WARNING', 'absl'):
    _cached(config)
  assert f'{tmp_path / folder}: damaged (of another size)' in caplog.text


def test_an_unfinished_folder_is_no_cache(shards, tmp_path, monkeypatch):
  config = tiny_data.config(shards, cache=os.fspath(tmp_path))
  write = caching.image_store.write_index

  def interrupted(path, index):
    write(path, index)
    raise KeyboardInterrupt

  monkeypatch.setattr(caching.image_store, 'write_index', interrupted)
  # A killed process cannot remove anything.
  monkeypatch.setattr(shutil, 'rmtree', lambda _: None)
  with pytest.raises(KeyboardInterrupt):
    _cached(config)
  monkeypatch.undo()
  (left,) = (n for n in os.listdir(tmp_path) if n.endswith('.unfinished'))
  assert _cached(config) is not None
  names = {locks.FILE, left.removesuffix('.unfinished')}
  assert set(os.listdir(tmp_path)) == names


def test_a_process_waits_for_the_one_that_writes(
  shards, tmp_path, monkeypatch, decodings
):
  config = tiny_data.config(shards, cache=os.fspath(tmp_path))
  other = locks.locked(os.fspath(tmp_path))
  other.__enter__()
  waits = []

  def sleep(seconds):
    waits.append(seconds)
    if len(waits) == 3:
      other.__exit__(None, None, None)

  monkeypatch.setattr(time, 'sleep', sleep)
  _cached(config)
  assert len(waits) == 3
  assert decodings['train'] == 1


_PROCESS = """
import os, sys, time
from efficientnet_advprop.data import caching
from efficientnet_advprop.data import sources
from efficientnet_advprop.testing import tiny_data
config = tiny_data.config(sys.argv[1], cache=sys.argv[2])
if sys.argv[3] == 'slow':
  write = caching.image_store.write_index
  def written(path, index):
    print('writing', flush=True)
    time.sleep(60)
  caching.image_store.write_index = written
caching.training(config, sources.find(config.data, 'train'))
print('done', flush=True)
"""


@pytest.mark.slow
def test_a_killed_process_leaves_the_folder_to_the_one_that_waits(
  shards, tmp_path
):
  place = os.fspath(tmp_path)
  environment = {**os.environ, 'PYTHONPATH': os.getcwd()}
  command = [sys.executable, '-c', _PROCESS, shards, place]
  options = {'stdout': subprocess.PIPE, 'text': True, 'env': environment}
  with subprocess.Popen([*command, 'slow'], **options) as first:
    try:
      assert first.stdout.readline() == 'writing\n'
      with subprocess.Popen([*command, 'fast'], **options) as second:
        time.sleep(8)
        assert second.poll() is None  # It waits.
        first.send_signal(signal.SIGKILL)
        assert second.stdout.readline() == 'done\n'
    finally:
      first.kill()
  assert not [n for n in os.listdir(place) if n.endswith('.unfinished')]
