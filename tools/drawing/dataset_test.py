"""The schema of the embedded data set, its cues, and that it is redrawn."""

import glob
import io
import os

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from efficientnet_advprop.base import errors
from efficientnet_advprop.base import paths as paths_lib
from tools.drawing import dataset

_TESTDATA = paths_lib.embedded_data()
_NUM_CLASSES = len(dataset.CLASSES)
_SMALL = (
  dataset.Split('train', 6, 2, dataset.AGREEMENT),
  dataset.Split('stylized', 3, 1, 1 / _NUM_CLASSES),
)
_INTEGERS = {
  'image/class/label': None,
  'image/texture/label': None,
  'image/color/label': None,
  'image/height': 40,
  'image/width': 40,
  'image/channels': 3,
}
_STRINGS = {
  'image/encoded': None,
  'image/class/synset': None,
  'image/class/text': None,
  'image/filename': None,
  'image/format': b'JPEG',
  'image/colorspace': b'RGB',
}


def _read(pattern):
  """Yields a dict of values for every record; each key must be there."""
  features = {key: tf.io.FixedLenFeature([], tf.int64) for key in _INTEGERS}
  for key in _STRINGS:
    features[key] = tf.io.FixedLenFeature([], tf.string)
  paths = sorted(glob.glob(pattern))
  assert paths, pattern
  for serialized in tf.data.TFRecordDataset(paths).batch(500):
    batch = tf.io.parse_example(serialized, features)
    arrays = {key: value.numpy() for key, value in batch.items()}
    for i in range(len(serialized)):
      yield {key: array[i] for key, array in arrays.items()}


def _bytes_by_name(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def _chi_square(first, second):
  """Pearson's statistic of two 1-based label lists; 81 degrees of freedom."""
  table = np.zeros((_NUM_CLASSES, _NUM_CLASSES))
  np.add.at(table, (np.array(first) - 1, np.array(second) - 1), 1)
  expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
  return ((table - expected) ** 2 / expected).sum()


# Under independence the statistic passes this once in 10,000 times.
_CHI_SQUARE_BOUND = 135.0


@pytest.fixture(scope='module', name='small')
def _small(tmp_path_factory):
  folder = tmp_path_factory.mktemp('small')
  dataset.write_dataset(str(folder), _SMALL, seed=7)
  return folder


@pytest.fixture(scope='module', name='committed')
def _committed():
  return {
    split.name: list(_read(os.path.join(_TESTDATA, split.name + '-*')))
    for split in dataset.SPLITS
  }


def test_records_follow_the_schema(small):
  names = [cues.shape.encode() for cues in dataset.CLASSES]
  filenames = set()
  for split in _SMALL:
    for record in _read(str(small / f'{split.name}-*')):
      fixed = {**_INTEGERS, **_STRINGS}
      for key, value in fixed.items():
        assert value is None or record[key] == value, key
      name = names[record['image/class/label'] - 1]
      assert record['image/class/synset'] == name
      assert record['image/class/text'] == name
      filenames.add(record['image/filename'])
      image = Image.open(io.BytesIO(record['image/encoded']))
      assert (image.format, image.mode, image.size) == ('JPEG', 'RGB', (40, 40))
      assert np.asarray(image).std() > 8
  assert len(filenames) == 9 * _NUM_CLASSES


def test_same_seed_same_bytes(small, tmp_path):
  dataset.write_dataset(str(tmp_path), _SMALL, seed=7)
  assert _bytes_by_name(tmp_path) == _bytes_by_name(small)


@pytest.mark.parametrize('agreement', [0.85, 0.1])
def test_cues_agree_as_often_as_stated(agreement):
  rng = np.random.default_rng(0)
  labels = rng.integers(1, _NUM_CLASSES + 1, 6000)
  cues = [dataset.draw_cue(n, agreement, rng) for n in labels]
  deviation = np.sqrt(agreement * (1 - agreement) / 6000)
  assert abs(np.mean(labels == cues) - agreement) < 4 * deviation
  counts = np.bincount(np.array(cues)[labels != cues], minlength=11)[1:]
  expected = counts.mean()
  assert ((counts - expected) ** 2 / expected).sum() < 34  # 9 degrees: 1e-4.
  dependent = _chi_square(labels, cues) > _CHI_SQUARE_BOUND
  assert dependent == (agreement > 0.1)


def test_refuses_a_folder_with_another_data_set(tmp_path):
  (tmp_path / 'train-00000-of-01024').write_bytes(b'precious')
  with pytest.raises(errors.DataError, match='train-00000-of-01024 belongs'):
    dataset.write_dataset(str(tmp_path), _SMALL, seed=0)
  assert _bytes_by_name(tmp_path) == {'train-00000-of-01024': b'precious'}


def test_committed_data_is_complete_and_small(committed):
  sizes = {name: len(records) for name, records in committed.items()}
  assert sizes == {'train': 2500, 'validation': 500, 'stylized': 500}
  paths = glob.glob(os.path.join(_TESTDATA, '*-of-*'))
  assert len(paths) == 8
  assert sum(map(os.path.getsize, paths)) < 5_000_000
  for records in committed.values():
    labels = [record['image/class/label'] for record in records]
    assert set(np.bincount(labels, minlength=11)[1:]) == {len(records) // 10}
  for path in paths:
    labels = {record['image/class/label'] for record in _read(path)}
    assert len(labels) == _NUM_CLASSES
  with open(os.path.join(_TESTDATA, 'labels.txt')) as file:
    names = file.read().splitlines()
  assert names == [cues.shape for cues in dataset.CLASSES]


def test_committed_cues_agree_in_train_and_are_independent_in_stylized(
  committed,
):
  for name, records in committed.items():
    label, texture, color = (
      np.array([record[f'image/{cue}/label'] for record in records])
      for cue in ('class', 'texture', 'color')
    )
    pairs = (label, texture), (label, color), (texture, color)
    if name == 'stylized':
      for first, second in pairs:
        assert _chi_square(first, second) < _CHI_SQUARE_BOUND
        assert np.mean(first == second) < 0.16
    else:
      for first, second in pairs[:2]:
        assert 0.79 < np.mean(first == second) < 0.9
      both = np.mean((label == texture) & (label == color))
      assert both == pytest.approx(0.85**2, abs=0.06)


def test_committed_images_are_those_the_tool_draws(committed):
  for split in dataset.SPLITS:
    record = committed[split.name][0]
    stem = record['image/filename'].decode().split('.')[0]
    label, number = record['image/class/label'], int(stem.split('_')[-1])
    sample = dataset.draw_sample(split, int(label), number, seed=0)
    assert sample.texture_label == record['image/texture/label']
    assert sample.color_label == record['image/color/label']
    stored, drawn = (
      np.asarray(Image.open(io.BytesIO(jpeg)), float)
      for jpeg in (record['image/encoded'], sample.jpeg)
    )
    # Other versions of Pillow may round otherwise.
    assert np.abs(stored - drawn).mean() < 1
