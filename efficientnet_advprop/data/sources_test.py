import functools
import json
import os
import re
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.data import bad_records
from efficientnet_advprop.data import caching
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.data import preprocessing
from efficientnet_advprop.data import records
from efficientnet_advprop.data import shards
from efficientnet_advprop.data import sources
from efficientnet_advprop.testing import tiny_data


def _error(config, split='train'):
  with pytest.raises(errors.DataError) as caught:
    sources.find(config.data, split)
  assert '\n' not in str(caught.value)
  return str(caught.value)


def _training(config, *args):
  source = sources.find(config.data, config.data.train_split)
  return pipeline.train_dataset(config, source, *args)


def _evaluation(config, split):
  return pipeline.eval_dataset(config, sources.find(config.data, split))


def _touch(path):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(tiny_data.encoded_image(0))


# --- TFRecords --------------------------------------------------------------


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


def test_nothing_to_find_is_an_error(tmp_path):
  missing = tmp_path / 'missing'
  assert _error(tiny_data.config(missing)).startswith(
    f'{missing}: no such folder'
  )
  message = _error(tiny_data.config(tmp_path), 'test')
  assert message.startswith(f"{tmp_path}: no images of the split 'test'")


def test_a_missing_shard_is_an_error(tmp_path):
  paths = tiny_data.write_split(tmp_path, 'train', [10, 5, 5])
  os.remove(paths[1])
  assert _error(tiny_data.config(tmp_path)) == (
    f'{tmp_path}: train-00001-of-00003 is missing (2 of 3 shards are there)'
  )


def test_shards_of_two_sets_are_an_error(tmp_path):
  tiny_data.write_split(tmp_path, 'train', [10])
  tiny_data.write_split(tmp_path, 'train', [5, 5])
  assert 'different sets' in _error(tiny_data.config(tmp_path))


def test_a_wrong_number_of_images_is_an_error(tmp_path):
  tiny_data.write_split(tmp_path, 'train', [5, 5, 3, 5])
  tiny_data.write_split(tmp_path, 'validation', [8])
  config = tiny_data.config(tmp_path)
  assert _error(config) == (
    f"{tmp_path}: the split 'train' holds 18 images, data.num_train_images"
    ' says 20; train-00002-of-00004 holds 3, others 5 (cut short?)'
  )
  assert _error(config, 'validation') == (
    f"{tmp_path}: the split 'validation' holds 8 images, data.num_eval_images"
    ' says 7'
  )


def test_a_named_test_set_may_have_any_size_but_none(tmp_path):
  tiny_data.write_split(tmp_path, 'stylized', [3])
  tiny_data.write_split(tmp_path, 'empty', [0])
  config = tiny_data.config(tmp_path)
  assert sources.find(config.data, 'stylized').size == 3
  assert _error(config, 'empty').endswith("'empty' holds no images")


def test_missing_images_can_be_allowed(tmp_path):
  tiny_data.write_split(tmp_path, 'train', [10, 8])
  config = tiny_data.config(tmp_path, max_bad_records=2)
  assert sources.find(config.data, 'train').size == 18
  assert '18 images' in _error(tiny_data.config(tmp_path, max_bad_records=1))


@pytest.mark.parametrize('kept, problem', [
  (-3, 'record 4: the file ends 3 bytes too early'),
  (-10_000, 'record 0: the file ends inside its header'),
])  # fmt: skip
def test_a_cut_shard_is_an_error(tmp_path, kept, problem):
  _, path = tiny_data.write_split(tmp_path, 'train', [15, 5])
  os.truncate(path, max(5, os.path.getsize(path) + kept))
  assert _error(tiny_data.config(tmp_path)) == f'{path}: {problem}'


def test_a_damaged_header_is_an_error(tmp_path):
  path, _ = tiny_data.write_split(tmp_path, 'train', [15, 5])
  with open(path, 'r+b') as file:
    file.seek(3)  # In the length of record 0.
    file.write(b'\x01')
  message = f'{path}: record 0: its header is damaged'
  assert _error(tiny_data.config(tmp_path)) == message


def test_minival_is_held_out(tmp_path):
  tiny_data.write_split(tmp_path, 'train', [4, 4, 6, 6])
  config = tiny_data.config(tmp_path, 7, minival_shards=2, eval_split='minival')
  train = _training(config).take(4).as_numpy_iterator()
  seen = [i for batch in train for i in tiny_data.indices(batch['image'])]
  assert sorted(seen[:12]) == list(range(8, 20))
  minival = _evaluation(config, 'minival').as_numpy_iterator()
  seen = [i for batch in minival for i in tiny_data.indices(batch['image'])]
  assert seen == [0, 4, 1, 5, 2, 6, 3, 7]  # Two files side by side.


def test_too_large_a_minival_is_an_error(tmp_path):
  tiny_data.write_split(tmp_path, 'train', [10, 10])
  config = tiny_data.config(tmp_path, minival_shards=2)
  with pytest.raises(config_lib.ConfigError, match=r'data\.minival_shards'):
    sources.find(config.data, 'train')


# --- Sets that are counted while they are read ------------------------------


@pytest.fixture(name='uncounted')
def _uncounted(monkeypatch):
  monkeypatch.setattr(shards, '_COUNTED_BYTES', 0)


def _read_error(dataset):
  with pytest.raises(tf.errors.OpError) as caught:
    list(dataset.take(10))
  return str(bad_records.explain(caught.value))


def test_an_uncounted_set_is_read_alike(tmp_path, uncounted, monkeypatch):
  tiny_data.write_split(tmp_path, 'train', [7, 13])
  config = tiny_data.config(tmp_path)
  batches = list(_training(config).take(6).as_numpy_iterator())
  monkeypatch.undo()
  counted = list(_training(config).take(6).as_numpy_iterator())
  for batch, other in zip(batches, counted):
    assert (batch['image'] == other['image']).all()


@pytest.mark.parametrize('count', [18, 22])
def test_an_uncounted_set_of_another_size_is_an_error(
  tmp_path, uncounted, count
):
  tiny_data.write_split(tmp_path, 'train', [10, count - 10])
  dataset = _training(tiny_data.config(tmp_path))
  assert _read_error(dataset) == (
    'train: the split holds more or fewer images than the configuration says'
  )


def test_an_uncounted_cut_shard_is_an_error(tmp_path, uncounted):
  path, _ = tiny_data.write_split(tmp_path, 'train', [10, 10])
  os.truncate(path, os.path.getsize(path) - 3)
  dataset = _training(tiny_data.config(tmp_path))
  assert _read_error(dataset).startswith(f'{path}: record 9: damaged or')


def test_hosts_divide_an_uncounted_set(tmp_path, uncounted):
  tiny_data.write_split(tmp_path, 'train', [5, 5, 5, 5])
  config = tiny_data.config(tmp_path, shuffle_window=2)
  seen = []
  for host in range(2):
    context = tf.distribute.InputContext(2, host, 2)
    dataset = _training(config, 5, context)
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
    dataset = _training(config, 0, context).unbatch()
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
  assert _error(config) == (
    f'{paths[1]}: {size - 3} bytes, its manifest says {size} (cut short?)'
  )
  allowed = tiny_data.config(tmp_path, max_bad_records=1)
  assert sources.find(allowed.data, 'train').counts == (10, 10)
  _write_manifest(tmp_path, paths[:1], [10])
  assert _error(config).startswith(f'{manifest}: 1 of 2 shards are written')
  manifest.write_text('{')
  assert _error(config) == f'{manifest}: damaged'


# --- Class folders ----------------------------------------------------------


def _write_folders(directory, split, per_class):
  for label, count in enumerate(per_class):
    for i in range(count):
      path = directory / split / f'class_{label}' / f'{i:02d}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(tiny_data.encoded_image(3 * i + label))


def test_class_folders_are_read(tmp_path):
  _write_folders(tmp_path, 'train', [7, 7, 6])
  _write_folders(tmp_path, 'validation', [3, 2, 2])
  (tmp_path / 'train' / 'class_0' / 'notes.txt').write_text('not an image')
  config = tiny_data.config(tmp_path, shuffle_window=2)
  for batches in (
    _training(config).take(5),
    _evaluation(config, 'validation'),
  ):
    seen = []
    for batch in batches.as_numpy_iterator():
      numbers = tiny_data.indices(batch['image'])
      assert [number % 3 for number in numbers] == batch['label'].tolist()
      seen += numbers
    assert set(seen) == set(range(max(seen) + 1))


def test_every_suffix_counts_as_an_image(tmp_path):
  for name in ('a.jpg', 'b.jpeg', 'c.JPEG', 'd.png', 'e.gif'):
    for label in '012':
      _touch(tmp_path / 'stylized' / label / name)
  config = tiny_data.config(tmp_path)
  assert sources.find(config.data, 'stylized').size == 12


def test_a_bad_image_file_is_named(tmp_path):
  _write_folders(tmp_path, 'train', [7, 7, 6])
  bad = tmp_path / 'train' / 'class_1' / '03.png'
  bad.write_bytes(b'nothing')
  dataset = _training(tiny_data.config(tmp_path))
  expected = f'{bad}: the image cannot be decoded (7 bytes)'
  assert _read_error(dataset) == expected


def test_an_empty_class_is_an_error(tmp_path):
  _write_folders(tmp_path, 'train', [10, 10])
  empty = tmp_path / 'train' / 'class_2'
  empty.mkdir()
  message = f'{empty}: the class folder holds no image'
  assert _error(tiny_data.config(tmp_path)) == message


def test_wrong_classes_are_an_error(tmp_path):
  _write_folders(tmp_path, 'train', [7, 7, 6])
  _write_folders(tmp_path, 'validation', [4, 3])
  message = _error(tiny_data.config(tmp_path), 'validation')
  assert message.endswith("'class_2' is in one only")
  message = _error(tiny_data.config(tmp_path, num_classes=4))
  assert message.endswith('3 class folders, data.num_classes says 4')


def test_pictures_that_are_not_read_are_counted(tmp_path, caplog):
  tiny_data.write_class_folders(tmp_path, {'stylized': 6})
  for name in ('a.webp', 'b.WEBP', 'c.tiff', 'notes.txt'):
    (tmp_path / 'stylized' / 'class_1' / name).touch()
  with caplog.at_level('WARNING', 'absl'):
    source = sources.find(tiny_data.config(tmp_path).data, 'stylized')
  assert source.size == 6
  assert caplog.messages == [
    f'{tmp_path}/stylized: 1 .tiff, 2 .webp files are left out;'
    ' tools/build_tfrecords.py converts them'
  ]
  (tmp_path / 'stylized' / 'class_3').mkdir()
  (tmp_path / 'stylized' / 'class_3' / 'a.heic').touch()
  message = _error(tiny_data.config(tmp_path, num_classes=4), 'stylized')
  assert message.endswith(
    'holds no image that is read (1 .heic, 1 .tiff, 2 .webp)'
  )


def test_class_folders_are_divided_by_names_and_seed(tmp_path):
  """Wherever the folder is."""
  for folder in ('one', 'two'):
    tiny_data.write_class_folders(tmp_path, {folder: 60})

  def parts(folder, seed=0, fraction=0.2):
    config = tiny_data.config(
      tmp_path / folder,
      num_train_images=None,
      num_eval_images=None,
      validation_fraction=fraction,
      validation_seed=seed,
    )
    found = [sources.find(config.data, s) for s in ('train', 'validation')]
    for source in found:
      for file, label in zip(source.files, source.labels):
        assert f'/class_{label}/' in file
    return [
      {os.path.relpath(file, tmp_path / folder) for file in source.files}
      for source in found
    ]

  train, held_out = parts('one')
  assert len(train) == 48 and len(held_out) == 12
  assert not train & held_out
  # A fifth of each class.
  assert [sum(f'class_{i}' in f for f in held_out) for i in range(3)] == [4] * 3
  assert parts('two') == [train, held_out]
  assert parts('one', seed=1)[1] != held_out
  assert parts('one', fraction=0.4)[1] > held_out
  (tmp_path / 'three').mkdir()
  os.rename(tmp_path / 'one', tmp_path / 'three' / 'train')
  inside = parts('three')[1]
  assert inside == {os.path.join('train', file) for file in held_out}


def test_a_folder_that_is_divided_has_no_split_of_its_own(tmp_path):
  tiny_data.write_class_folders(tmp_path, {'train': 20, 'validation': 7})
  config = tiny_data.config(tmp_path, validation_fraction=0.5)
  with pytest.raises(config_lib.ConfigError, match='validation_fraction'):
    sources.find(config.data, 'train')
  single = tmp_path / 'flat'
  tiny_data.write_class_folders(tmp_path, {'flat': 3})
  config = tiny_data.config(single, validation_fraction=0.5)
  assert 'one image cannot be divided' in _error(config)
  assert _error(tiny_data.config(single)).endswith(
    'a folder of class folders needs data.validation_fraction'
  )


# --- Numbers that are left to the data ---------------------------------------

_NOBODY_SAYS = dict(
  num_classes=None, num_train_images=None, num_eval_images=None
)


def _numbers(config):
  data = sources.resolved(config).data
  return data.num_classes, data.num_train_images, data.num_eval_images


def test_numbers_are_those_of_class_folders(tmp_path):
  tiny_data.write_class_folders(tmp_path, {'train': 20, 'validation': 7})
  config = tiny_data.config(tmp_path, **_NOBODY_SAYS)
  assert _numbers(config) == (3, 20, 7)
  # The file of a run says them.
  text = config_lib.to_yaml(sources.resolved(config))
  assert 'num_train_images: 20' in text
  given = tiny_data.config(tmp_path, **{**_NOBODY_SAYS, 'num_classes': 4})
  with pytest.raises(errors.DataError, match=r'num_classes says 4'):
    sources.resolved(given)


def test_numbers_are_those_of_records(tmp_path):
  tiny_data.write_split(tmp_path, 'train', [7, 13], num_classes=5)
  tiny_data.write_split(tmp_path, 'validation', [6])
  config = tiny_data.config(tmp_path, **_NOBODY_SAYS)
  assert _numbers(config) == (5, 20, 6)  # The highest label is 5.
  held_out = tiny_data.config(tmp_path, **_NOBODY_SAYS, minival_shards=1)
  assert _numbers(held_out) == (5, 13, 6)
  (tmp_path / 'labels.txt').write_text('a\nb\nc\nd\ne\nf\n')
  assert _numbers(config) == (6, 20, 6)


def test_a_number_that_nobody_can_tell_must_be_given(tmp_path, uncounted):
  tiny_data.write_split(tmp_path, 'train', [20])
  tiny_data.write_split(tmp_path, 'validation', [7])
  config = tiny_data.config(tmp_path, num_train_images=None)
  with pytest.raises(config_lib.ConfigError, match='train_images: got None'):
    sources.resolved(config)
  config = tiny_data.config(tmp_path, num_classes=None)
  with pytest.raises(config_lib.ConfigError, match='num_classes: got None'):
    sources.resolved(config)


def test_a_split_that_is_not_there_has_no_number(tmp_path):
  tiny_data.write_class_folders(tmp_path, {'validation': 7})
  config = tiny_data.config(tmp_path, **_NOBODY_SAYS)
  assert _numbers(config) == (3, None, 7)
  with pytest.raises(config_lib.ConfigError, match='num_train_images'):
    _ = sources.resolved(config).train_steps
  empty = tmp_path / 'empty'
  empty.mkdir()
  with pytest.raises(errors.DataError, match="no images of the split 'train'"):
    sources.resolved(tiny_data.config(empty, **_NOBODY_SAYS))


def test_given_numbers_are_not_looked_up(tmp_path):
  config = tiny_data.config(tmp_path / 'nowhere')
  assert sources.resolved(config) == config


# --- TensorFlow Datasets ----------------------------------------------------


class InputTestData(tfds.core.GeneratorBasedBuilder):
  """Twenty grey images of 14 x 12 pixels; number i has the label i % 3."""

  VERSION = tfds.core.Version('1.0.0')
  url_infos = None  # Nothing is downloaded.

  def _info(self):
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict({
        'image': tfds.features.Image(shape=(14, 12, 1)),
        'label': tfds.features.ClassLabel(num_classes=3),
      })
    )  # fmt: skip

  def _split_generators(self, dl_manager):
    return {'train': self._generate(20), 'test': self._generate(7)}

  def _generate(self, count):
    for i in range(count):
      image = tf.fill([14, 12, 1], tf.constant(10 * i, tf.uint8)).numpy()
      yield i, {'image': image, 'label': i % 3}

  _generate_examples = _generate


@pytest.fixture(name='prepared')
def _prepared(tmp_path, monkeypatch):
  builder = InputTestData(data_dir=tmp_path)
  builder.download_and_prepare()
  _look_in(tmp_path, monkeypatch)


def _look_in(data_dir, monkeypatch):
  find = functools.partial(tfds.builder, data_dir=data_dir)
  monkeypatch.setattr(tfds, 'builder', find)


def _grey_levels(batch):
  return ((batch['image'][:, 0, 0] + 1) * 127.5).round().astype(int).tolist()


def test_tfds_is_read(prepared):
  config = tiny_data.config('tfds:input_test_data', eval_split='test')
  seen = []
  for batch in _training(config).take(5).as_numpy_iterator():
    for grey, label in zip(_grey_levels(batch), batch['label']):
      assert grey == [grey[0]] * 3
      assert grey[0] // 10 % 3 == label
      seen.append(grey[0] // 10)
  assert sorted(seen) == list(range(20))
  batches = _evaluation(config, 'test').as_numpy_iterator()
  assert sum(batch['weight'].sum() for batch in batches) == 7


def test_tfds_is_cached(prepared):
  config = tiny_data.config(
    'tfds:input_test_data',
    train_split='train[15:]',
    num_train_images=5,
    cache='memory',
  )
  source = sources.find(config.data, 'train[15:]')
  store = caching.training(config, source).cache
  for number, record in enumerate(_records(source)):
    image, label = records.image_and_label(source, record)
    box = tf.constant([0, 0, 14, 12])
    crop = store.crop(tf.constant(number, tf.int64), box)
    whole = preprocessing.decode_and_crop(image, box)
    np.testing.assert_array_equal(crop, whole)
    assert store.label(number) == tf.cast(label, tf.int32)


def _records(source):
  """All records, file by file."""
  for file in range(len(source.files)):
    yield from records.read(
      source, tf.data.Dataset.from_tensors(np.int64(file))
    )


def test_numbers_and_names_are_those_of_tfds(prepared):
  config = tiny_data.config(
    'tfds:input_test_data', eval_split='test', **_NOBODY_SAYS
  )
  assert _numbers(config) == (3, 20, 7)
  assert sources.label_names(config.data) == ['0', '1', '2']


def test_part_of_a_tfds_split_is_read(prepared):
  config = tiny_data.config('tfds:input_test_data', train_split='train[15:]')
  assert sources.find(config.data, 'test[:3]').size == 3
  message = _error(config, 'train[15:]')
  assert "'train[15:]' holds 5 images" in message
  (batch,) = _evaluation(config, 'test[2:5]').as_numpy_iterator()
  (whole, _) = _evaluation(config, 'test').as_numpy_iterator()
  assert batch['label'][:2].tolist() == whole['label'][2:].tolist()
  assert batch['weight'].tolist() == [1, 1, 1, 0]


def _prepare(name, splits, data_dir, monkeypatch):
  """Has TFDS's own builder of `name` write seven drawn images per split."""
  builder_class = type(tfds.builder(name, data_dir=data_dir))

  def generate(self):
    features = self.info.features
    height, width = (side or 9 for side in features['image'].shape[:2])
    for number in range(7):
      values = dict.fromkeys(features, f'file_{number}')
      image = np.full([height, width, 3], number, np.uint8)
      yield number, {**values, 'image': image, 'label': number}

  def split_generators(self, _):
    return {split: generate(self) for split in splits}

  monkeypatch.setattr(builder_class, '_split_generators', split_generators)
  # Such as want files that their user must download.
  for owner in builder_class.__mro__:
    if 'MANUAL_DOWNLOAD_INSTRUCTIONS' in vars(owner):
      monkeypatch.setattr(owner, 'MANUAL_DOWNLOAD_INSTRUCTIONS', None)
  tfds.builder(name, data_dir=data_dir).download_and_prepare()
  _look_in(data_dir, monkeypatch)


@pytest.mark.parametrize('name, splits', [
  ('imagenet2012', ('train', 'validation')),
  ('cifar10', ('train', 'test')),
  ('imagenet_a', ('test',)),
  ('imagenet_r', ('test',)),
  ('imagenet_v2', ('test',)),
  ('imagenet_v2/threshold-0.7', ('test',)),
  ('imagenet2012_corrupted/fog_3', ('validation',)),
  ('imagenet2012_corrupted/gaussian_noise_1:3.*.*', ('validation',)),
])  # fmt: skip
def test_published_sets_are_read(name, splits, tmp_path, monkeypatch):
  _prepare(name, splits, tmp_path, monkeypatch)
  for split in splits:
    config = tiny_data.config(
      f'tfds:{name}:{split}', num_classes=10 if name == 'cifar10' else 1000
    )
    source = sources.find(config.data, config.data.eval_split)
    seen = []
    for record in records.read(source, tf.data.Dataset.range(1)):
      encoded, _, label = records.parse(
        source, preprocessing.image_shape, record
      )
      image = tf.io.decode_image(encoded)
      assert image.shape[2] == 3
      assert abs(image.numpy().astype(int) - int(label)).max() <= 1
      seen.append(int(label))
    assert sorted(seen) == list(range(7))


def test_a_named_tfds_split_is_for_evaluation(prepared):
  config = tiny_data.config(
    'tfds:input_test_data:train[3:10]', num_train_images=7
  )
  assert sources.find(config.data, 'validation').size == 7
  assert sources.find(config.data, 'test[:3]').size == 3
  assert _error(config) == (
    'tfds:input_test_data:train[3:10]: names the split to evaluate; to train,'
    ' leave it out and set data.train_split and data.eval_split'
  )


def test_an_unknown_tfds_split_is_an_error(prepared):
  config = tiny_data.config('tfds:input_test_data')
  message = _error(config, 'tets')
  assert message.startswith("tfds:input_test_data: no split 'tets'")
  assert 'did you mean test?' in message


def test_an_unprepared_tfds_set_is_an_error(tmp_path, monkeypatch):
  _look_in(tmp_path, monkeypatch)
  message = _error(tiny_data.config('tfds:input_test_data'))
  assert message.endswith('run `tfds build input_test_data`')


@pytest.mark.parametrize('name, problem', [
  ('no_such_data', 'Dataset no_such_data not found'),
  ('imagenet2012_corrupted/foggy', '.*BuilderConfig foggy not found'),
  ('cifar10:9.9.9', '.*cannot be loaded at version 9.9.9'),
  ('', 'Parsing builder name string'),
])  # fmt: skip
def test_an_unknown_tfds_name_is_an_error(name, problem):
  message = _error(tiny_data.config(f'tfds:{name}'))
  assert re.match(f'tfds:{name}: {problem}', message), message
  assert len(message) < 200


def test_tfds_is_optional(monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
  message = _error(tiny_data.config('tfds:cifar10'))
  assert message == 'tfds:cifar10: needs the package tensorflow-datasets'
