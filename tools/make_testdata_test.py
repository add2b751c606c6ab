"""Tests of the embedded data set and of the tool that draws it."""

import collections
import glob
import io
import itertools
import os
import subprocess
import sys

from absl import flags
import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from tools import make_testdata
from tools.drawing import scenes

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_TESTDATA = os.path.join(_ROOT, 'testdata')
_NUM_CLASSES = len(make_testdata.CLASSES)
_SMALL = (
  make_testdata.Split('train', 6, 2, make_testdata.AGREEMENT),
  make_testdata.Split('stylized', 3, 1, 1 / _NUM_CLASSES),
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
  make_testdata.write_dataset(str(folder), _SMALL, seed=7)
  return folder


@pytest.fixture(scope='module', name='committed')
def _committed():
  return {
    split.name: list(_read(os.path.join(_TESTDATA, split.name + '-*')))
    for split in make_testdata.SPLITS
  }


def test_records_follow_the_schema(small):
  names = [cues.shape.encode() for cues in make_testdata.CLASSES]
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


def test_classes_are_balanced_and_mixed(small):
  for split in _SMALL:
    records = list(_read(str(small / f'{split.name}-*')))
    labels = [record['image/class/label'] for record in records]
    expected = dict.fromkeys(range(1, _NUM_CLASSES + 1), split.images_per_class)
    assert collections.Counter(labels) == expected
    assert np.mean(np.diff(labels) == 0) < 0.4


def test_shards_are_named_like_the_official_ones(small):
  assert sorted(path.name for path in small.iterdir()) == [
    'labels.txt',
    'stylized-00000-of-00001',
    'train-00000-of-00002',
    'train-00001-of-00002',
  ]


def test_same_seed_same_bytes(small, tmp_path):
  make_testdata.write_dataset(str(tmp_path), _SMALL, seed=7)
  assert _bytes_by_name(tmp_path) == _bytes_by_name(small)


def test_seed_and_number_change_the_image():
  draw = make_testdata.draw_sample
  split = _SMALL[0]
  images = [
    draw(split, 3, number, seed).jpeg
    for number, seed in ((0, 0), (1, 0), (0, 1))
  ]
  assert len(set(images)) == 3
  assert draw(_SMALL[1], 3, 0, 0).jpeg not in images


@pytest.mark.parametrize('agreement', [0.85, 0.1])
def test_cues_agree_as_often_as_stated(agreement):
  rng = np.random.default_rng(0)
  labels = rng.integers(1, _NUM_CLASSES + 1, 6000)
  cues = [make_testdata.draw_cue(n, agreement, rng) for n in labels]
  deviation = np.sqrt(agreement * (1 - agreement) / 6000)
  assert abs(np.mean(labels == cues) - agreement) < 4 * deviation
  counts = np.bincount(np.array(cues)[labels != cues], minlength=11)[1:]
  expected = counts.mean()
  assert ((counts - expected) ** 2 / expected).sum() < 34  # 9 degrees: 1e-4.
  dependent = _chi_square(labels, cues) > _CHI_SQUARE_BOUND
  assert dependent == (agreement > 0.1)


def test_no_shape_is_another_one_turned_or_mirrored():
  def mask(shape, turn=0.0, mirror=1):
    points = np.array(scenes.OUTLINES[shape]) * [mirror, 1]
    rotation = scenes.rotation(turn)
    image = scenes.polygon_mask(20 + 12 * points @ rotation)
    return np.asarray(image) > 0

  def overlap(first, second):
    return (first & second).sum() / (first | second).sum()

  assert overlap(mask('star'), mask('star', 2 * np.pi / 5)) > 0.95
  turns = np.linspace(0, 2 * np.pi, 48, endpoint=False)
  for first, second in itertools.combinations(scenes.OUTLINES, 2):
    fixed = mask(first)
    for turn, mirror in itertools.product(turns, (1, -1)):
      assert overlap(fixed, mask(second, turn, mirror)) < 0.85, (first, second)


def test_every_class_has_its_own_shape_texture_and_color():
  classes = make_testdata.CLASSES
  assert {cues.shape for cues in classes} == set(scenes.OUTLINES)
  assert {cues.texture for cues in classes} == set(scenes.TEXTURES)
  assert len({cues.color for cues in classes}) == _NUM_CLASSES
  hues = np.sort([cues.hue for cues in classes])
  assert np.diff(np.append(hues, hues[0] + 360)).min() >= 25


@pytest.mark.parametrize('name', sorted(scenes.TEXTURES))
def test_textures_show_both_tones(name):
  u, v = np.meshgrid(np.linspace(3, 11, 200), np.linspace(5, 13, 200))
  rng = np.random.default_rng(0)
  pattern = np.asarray(scenes.TEXTURES[name](u, v, rng), float)
  assert pattern.shape == u.shape
  assert pattern.min() == pytest.approx(0, abs=0.01)
  assert pattern.max() == pytest.approx(1, abs=0.02)
  assert 0.2 < pattern.mean() < 0.85


def test_refuses_a_folder_with_another_data_set(tmp_path):
  (tmp_path / 'train-00000-of-01024').write_bytes(b'precious')
  with pytest.raises(ValueError, match='train-00000-of-01024 belongs'):
    make_testdata.write_dataset(str(tmp_path), _SMALL, seed=0)
  assert _bytes_by_name(tmp_path) == {'train-00000-of-01024': b'precious'}


@pytest.mark.parametrize(
  'argument, words',
  [
    ('--seed=-1', 'seed'),
    ('--seed=one', 'seed'),
    ('--sede=1', 'sede'),
    ('elsewhere', 'elsewhere'),
    ('--preview=sheet.jpg', 'sheet.jpg'),
  ],
)
def test_wrong_flags_end_in_one_line(argument, words, capsys):
  try:
    with pytest.raises(SystemExit) as exit_info:
      make_testdata.parse_flags(['make_testdata.py', argument])
  finally:
    flags.FLAGS.unparse_flags()
    flags.FLAGS['preview'].unparse()
    flags.FLAGS['seed'].unparse()
  assert exit_info.value.code == 2
  line = capsys.readouterr().err
  assert words in line
  assert line.count('\n') == 1


def test_runs_as_a_file_and_reports_a_wrong_folder():
  command = [sys.executable, make_testdata.__file__, f'--output_dir={__file__}']
  result = subprocess.run(command, capture_output=True, text=True, check=False)
  assert result.returncode == 2
  assert 'Traceback' not in result.stderr
  last = result.stderr.strip().splitlines()[-1]
  assert last.startswith('make_testdata:') and __file__ in last


def test_contact_sheet_shows_every_class_and_split():
  sheet = make_testdata.contact_sheet(seed=0, images_per_cell=1)
  width, height = sheet.size
  assert width > 3 * 120 and height > _NUM_CLASSES * 120
  assert len(sheet.getcolors(1 << 24)) > 10_000


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
  assert names == [cues.shape for cues in make_testdata.CLASSES]


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
  for split in make_testdata.SPLITS:
    record = committed[split.name][0]
    stem = record['image/filename'].decode().split('.')[0]
    label, number = record['image/class/label'], int(stem.split('_')[-1])
    sample = make_testdata.draw_sample(split, int(label), number, seed=0)
    assert sample.texture_label == record['image/texture/label']
    assert sample.color_label == record['image/color/label']
    stored, drawn = (
      np.asarray(Image.open(io.BytesIO(jpeg)), float)
      for jpeg in (record['image/encoded'], sample.jpeg)
    )
    # Other versions of Pillow may round otherwise.
    assert np.abs(stored - drawn).mean() < 1
