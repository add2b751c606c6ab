import functools
import re
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from efficientnet_advprop.data import caching
from efficientnet_advprop.data import preprocessing
from efficientnet_advprop.data import records
from efficientnet_advprop.data import sources
from efficientnet_advprop.testing import reading
from efficientnet_advprop.testing import tiny_data


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
  for batch in reading.training(config).take(5).as_numpy_iterator():
    for grey, label in zip(_grey_levels(batch), batch['label']):
      assert grey == [grey[0]] * 3
      assert grey[0] // 10 % 3 == label
      seen.append(grey[0] // 10)
  assert sorted(seen) == list(range(20))
  batches = reading.evaluation(config, 'test').as_numpy_iterator()
  assert sum(batch['weight'].sum() for batch in batches) == 7


@pytest.mark.once
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
    'tfds:input_test_data',
    eval_split='test',
    num_classes=None,
    num_train_images=None,
    num_eval_images=None,
  )
  data = sources.resolved(config).data
  assert data.num_classes == 3
  assert (data.num_train_images, data.num_eval_images) == (20, 7)
  assert sources.label_names(config.data) == ['0', '1', '2']


@pytest.mark.once
def test_part_of_a_tfds_split_is_read(prepared):
  config = tiny_data.config('tfds:input_test_data', train_split='train[15:]')
  assert sources.find(config.data, 'test[:3]').size == 3
  message = reading.find_error(config, 'train[15:]')
  assert "'train[15:]' holds 5 images" in message
  (batch,) = reading.evaluation(config, 'test[2:5]').as_numpy_iterator()
  (whole, _) = reading.evaluation(config, 'test').as_numpy_iterator()
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
  assert reading.find_error(config) == (
    'tfds:input_test_data:train[3:10]: names the split to evaluate; to train,'
    ' leave it out and set data.train_split and data.eval_split'
  )


def test_an_unknown_tfds_split_is_an_error(prepared):
  config = tiny_data.config('tfds:input_test_data')
  message = reading.find_error(config, 'tets')
  assert message.startswith("tfds:input_test_data: no split 'tets'")
  assert 'did you mean test?' in message


def test_an_unprepared_tfds_set_is_an_error(tmp_path, monkeypatch):
  _look_in(tmp_path, monkeypatch)
  message = reading.find_error(tiny_data.config('tfds:input_test_data'))
  assert message.endswith('run `tfds build input_test_data`')


@pytest.mark.parametrize('name, problem', [
  ('no_such_data', 'Dataset no_such_data not found'),
  ('imagenet2012_corrupted/foggy', '.*BuilderConfig foggy not found'),
  ('cifar10:9.9.9', '.*cannot be loaded at version 9.9.9'),
  ('', 'Parsing builder name string'),
])  # fmt: skip
def test_an_unknown_tfds_name_is_an_error(name, problem):
  message = reading.find_error(tiny_data.config(f'tfds:{name}'))
  assert re.match(f'tfds:{name}: {problem}', message), message
  assert len(message) < 200


def test_tfds_is_optional(monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
  message = reading.find_error(tiny_data.config('tfds:cifar10'))
  assert message == 'tfds:cifar10: needs the package tensorflow-datasets'
