import functools
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.data import bad_records
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.evaluation import corruptions
from efficientnet_advprop.evaluation import image_sets
from efficientnet_advprop.evaluation import imagenet_classes
from efficientnet_advprop.testing import tiny_data

pytestmark = pytest.mark.once


def _test(**values):
  return config_lib.NamedTestConfig(**values)


def _error(config, test):
  with pytest.raises(errors.DataError) as caught:
    found = image_sets.find(config, test)
    try:
      _batch(config, found)
    except tf.errors.OpError as error:
      raise bad_records.explain(error) from error
  assert '\n' not in str(caught.value)
  return str(caught.value)


def _batch(config, images):
  dataset = pipeline.eval_dataset(config, images.source).unbatch()
  return next(dataset.batch(images.source.size).as_numpy_iterator())


def _write(path, index, side=12):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(tiny_data.encoded_image(index, side, side))


# --- ImageNet's variants ----------------------------------------------------


@pytest.fixture(scope='module', name='imagenet_a')
def _imagenet_a(tmp_path_factory):
  """One image for each of the 200 classes, and a file of text."""
  root = tmp_path_factory.mktemp('sets') / 'imagenet-a'
  synsets = imagenet_classes.synsets()
  for label in imagenet_classes.classes('imagenet_a'):
    _write(root / synsets[label] / 'a.png', label)
  (root / 'README.txt').touch()
  return root


def _of_imagenet(directory):
  return tiny_data.config(directory, num_classes=1000)


def test_folders_give_imagenet_s_labels(imagenet_a, tmp_path):
  config = _of_imagenet(tmp_path)
  test = _test(kind='imagenet_a', dir=str(imagenet_a), num_images=200)
  found = image_sets.find(config, test)
  assert found.classes == imagenet_classes.classes('imagenet_a')
  batch = _batch(config, found)
  assert batch['label'].tolist() == list(found.classes)
  assert tiny_data.indices(batch['image']) == list(found.classes)
  assert batch['image'].shape[1:3] == (8, 8)  # The network's own size.


def test_the_published_number_of_images_is_expected(imagenet_a, tmp_path):
  test = _test(kind='imagenet_a', dir=str(imagenet_a))
  assert _error(_of_imagenet(tmp_path), test) == (
    f"{imagenet_a}: the set 'imagenet-a' holds 200 images, not 7500"
  )


def test_an_extra_folder_is_an_error(imagenet_a, tmp_path):
  copy = tmp_path / 'copy'
  shutil.copytree(imagenet_a, copy)
  _write(copy / 'n01440764' / 'a.png', 0)
  test = _test(kind='imagenet_a', dir=str(copy), num_images=200)
  assert _error(_of_imagenet(tmp_path), test) == (
    f"{copy}: the folder 'n01440764' is no class of the 200 of imagenet_a"
  )
  missing = _test(kind='imagenet_a', dir=str(tmp_path / 'no'))
  assert _error(_of_imagenet(tmp_path), missing).endswith('no such folder')


def test_stored_images_are_read_as_they_are(tmp_path):
  """All 224 x 224 pixels reach the network, whatever its size."""
  encoded = tiny_data.encoded_image(5, 224, 224)
  records_of = [tiny_data.example(encoded, 7)] * 2
  tiny_data.write_shard(tmp_path / 'val-00000-of-00001', records_of)
  test = _test(
    kind='stylized_imagenet', dir=str(tmp_path), split='val', num_images=2
  )
  config = _of_imagenet(tmp_path)
  batch = _batch(config, image_sets.find(config, test))
  expected = tf.io.decode_png(encoded).numpy() * (2 / 255) - 1
  assert batch['image'].shape == (2, 224, 224, 3)
  np.testing.assert_allclose(batch['image'][1], expected, atol=1e-6)
  assert batch['label'].tolist() == [6, 6]


def test_another_image_size_is_an_error(tmp_path):
  records_of = [tiny_data.example(tiny_data.encoded_image(5, 224, 223), 7)]
  path = tmp_path / 'val-00000-of-00001'
  tiny_data.write_shard(path, records_of)
  test = _test(
    kind='stylized_imagenet', dir=str(tmp_path), split='val', num_images=1
  )
  assert _error(_of_imagenet(tmp_path), test) == (
    f'{path}: record 0: the image has 223 x 224 pixels; this test set has'
    ' 224 x 224'
  )


# --- Corruptions ------------------------------------------------------------


@pytest.fixture(scope='module', name='tree')
def _tree(tmp_path_factory):
  """The official layout, with three classes of one image."""
  root = tmp_path_factory.mktemp('corrupted')
  for number, name in enumerate(corruptions.NAMES):
    for severity in corruptions.SEVERITIES:
      for label, folder in enumerate(('a', 'b', 'c')):
        path = root / name / str(severity) / folder / 'x.png'
        _write(path, 100 * severity + 3 * number + label, side=8)
  (root / 'corrupted.json').touch()
  return root


_CORRUPTED = _test(kind='corruptions')


def test_the_official_tree_is_read(tree, tmp_path):
  config = tiny_data.config(tmp_path)
  cases = image_sets.find_corrupted(config, _CORRUPTED, str(tree))
  assert len(cases) == 75
  assert next(iter(cases)) == ('gaussian_noise', 1)
  for (name, severity), find in list(cases.items())[::37]:
    batch = _batch(config, find())
    first = 100 * severity + 3 * corruptions.NAMES.index(name)
    assert tiny_data.indices(batch['image']) == [first, first + 1, first + 2]
    assert batch['label'].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
  'change, words',
  [
    (lambda t: shutil.rmtree(t / 'snow'), 'corruption snow is missing (14 of'),
    (lambda t: shutil.rmtree(t / 'fog' / '3'), 'fog: severity 3 is missing'),
    (lambda t: (t / 'fogg').mkdir(), "'fogg' is no corruption; there are "),
    (lambda t: (t / 'fog' / '6').mkdir(), "fog: the folder '6' is no severity"),
    (
      lambda t: shutil.rmtree(t / 'fog' / '3' / 'b'),
      '3: 2 class folders, data',
    ),
    (lambda t: (t / 'fog/3/b').rename(t / 'fog/3/d'), "'b' is in one only"),
    (
      lambda t: _write(t / 'fog/3/b/y.png', 0),
      "fog/3: the set '3' holds 4 images, not 3",
    ),
  ],
)
def test_an_incomplete_tree_is_an_error(tree, tmp_path, change, words):
  copy = tmp_path / 'copy'
  shutil.copytree(tree, copy)
  change(copy)
  config = tiny_data.config(tmp_path)
  with pytest.raises(errors.DataError) as caught:
    image_sets.find_corrupted(config, _CORRUPTED, str(copy))
  assert words in str(caught.value) and '\n' not in str(caught.value)
  assert str(caught.value).startswith(str(copy))


def test_the_extra_corruptions_are_left_out(tree, tmp_path):
  copy = tmp_path / 'copy'
  shutil.copytree(tree, copy)
  (copy / 'speckle_noise').mkdir()
  config = tiny_data.config(tmp_path)
  cases = image_sets.find_corrupted(config, _CORRUPTED, str(copy))
  assert len(cases) == 75


class RobustTestData(tfds.core.GeneratorBasedBuilder):
  """A corruption of three images of 8 x 8 pixels."""

  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = (tfds.core.BuilderConfig(name='fog_2'),)
  url_infos = None  # Nothing is downloaded.

  def _info(self):
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict({
        'image': tfds.features.Image(shape=(8, 8, 3)),
        'label': tfds.features.ClassLabel(num_classes=3),
      })
    )  # fmt: skip

  def _split_generators(self, dl_manager):
    return {'test': self._generate_examples()}

  def _generate_examples(self):
    for i in range(3):
      pixels = tf.io.decode_png(tiny_data.encoded_image(i, 8, 8)).numpy()
      yield i, {'image': pixels, 'label': i}


def test_tfds_is_read(tmp_path, monkeypatch):
  RobustTestData(data_dir=tmp_path, config='fog_2').download_and_prepare()
  find = functools.partial(tfds.builder, data_dir=tmp_path)
  monkeypatch.setattr(tfds, 'builder', find)
  config = tiny_data.config(tmp_path)
  found = image_sets.find_case(
    config, _CORRUPTED, 'tfds:robust_test_data', 'fog', 2, None
  )
  batch = _batch(config, found)
  assert sorted(tiny_data.indices(batch['image'])) == [0, 1, 2]
  assert tiny_data.indices(batch['image']) == batch['label'].tolist()


def test_a_split_of_another_folder(tmp_path):
  tiny_data.write_split(tmp_path, 'hard', [5])
  config = tiny_data.config(os.path.dirname(tmp_path))
  test = _test(dir=str(tmp_path), split='hard')
  assert image_sets.find(config, test).source.size == 5
  wrong = _test(dir=str(tmp_path), split='hard', num_images=6)
  assert "'hard' holds 5 images, not 6" in _error(config, wrong)
