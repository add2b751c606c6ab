import os
import sys

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.config import recipes
from efficientnet_advprop.data import sources
from efficientnet_advprop.evaluation import corruptions
from efficientnet_advprop.testing import tiny_data

# Compiled by Numba for seconds, which adds nothing to a test of ours.
_SLOW = 'glass_blur'
_QUICK = tuple(name for name in corruptions.NAMES if name != _SLOW)


@pytest.fixture(scope='module', name='package', autouse=True)
def _package():
  return pytest.importorskip('imagecorruptions', exc_type=ImportError)


@pytest.fixture(scope='module', name='image')
def _image():
  ramp = np.linspace(40, 200, 32)
  image = np.stack([np.add.outer(ramp, ramp) / 2] * 3, -1)
  image[8:24, 8:24] = [200, 90, 30]
  return image.astype(np.uint8)


def test_the_names_are_those_of_the_benchmark(package):
  assert list(corruptions.NAMES) == package.get_corruption_names()


@pytest.mark.parametrize('name', _QUICK)
def test_a_corruption_is_a_function_of_its_arguments(image, name):
  before = image.copy()
  np.random.seed(1)
  one = corruptions.corrupt(image, name, 3, 7, 0)
  after = np.random.random()
  np.random.seed(2)
  two = corruptions.corrupt(image, name, 3, 7, 0)
  np.testing.assert_array_equal(one, two)
  np.testing.assert_array_equal(image, before)
  assert one.shape == image.shape and one.dtype == np.uint8
  assert (one != image).any()
  # The caller's generator goes on as if nothing had been drawn.
  np.random.seed(1)
  assert np.random.random() == after


@pytest.mark.parametrize(
  'name', ['gaussian_noise', 'impulse_noise', 'motion_blur', 'snow', 'frost']
)
def test_random_corruptions_depend_on_seed_and_index(image, name):
  one = corruptions.corrupt(image, name, 2, 0, 0)
  assert (one != corruptions.corrupt(image, name, 2, 0, 1)).any()
  assert (one != corruptions.corrupt(image, name, 2, 1, 0)).any()


def test_noise_has_the_published_strength():
  grey = np.full([64, 64, 3], 128, np.uint8)
  for severity, scale in zip((1, 3), (0.08, 0.18)):
    noisy = corruptions.corrupt(grey, 'gaussian_noise', severity, 0) / 255.0
    assert np.std(noisy) == pytest.approx(scale, rel=0.05)
  darker = corruptions.corrupt(grey, 'brightness', 5, 0)
  np.testing.assert_allclose(darker / 255.0, 128 / 255 + 0.5, atol=0.01)


def test_unknown_names_and_small_images_are_refused(image):
  with pytest.raises(config_lib.ConfigError, match='did you mean snow'):
    corruptions.corrupt(image, 'snwo', 1, 0)
  with pytest.raises(errors.DataError, match='32 x 31 pixels'):
    corruptions.corrupt(image[:31], 'snow', 1, 0)


# --- Whole test sets, with corruptions that cost nothing. --------------------


@pytest.fixture(name='config')
def _config(tmp_path, monkeypatch):
  def fake(image, severity, corruption_name):
    return np.uint8(np.clip(image.astype(int) + severity, 0, 255))

  class Package:
    corrupt = staticmethod(
      lambda image, severity, corruption_name, seed=None: fake(
        image, severity, corruption_name
      )
    )

  monkeypatch.setattr(corruptions, '_package', Package)
  monkeypatch.setattr(corruptions, 'NAMES', ('fog', 'frost'))
  data = tmp_path / 'data'
  data.mkdir()
  tiny_data.write_split(data, 'validation', [4, 3])
  config = tiny_data.config(data)
  overrides = ['model.image_size=32']
  values = config_lib.to_dict(config)
  return config_lib.from_dict(recipes.apply_overrides(values, overrides))


def _read(directory, name, severity):
  """Which images of `fake_data` a file holds, its labels, what was added."""
  path = os.path.join(directory, name, f'{severity}-00000-of-00001')
  indices, labels, added = [], [], []
  for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
    example = tf.train.Example.FromString(record).features.feature
    (encoded,) = example['image/encoded'].bytes_list.value
    image = tf.io.decode_image(encoded).numpy()
    assert image.shape == (32, 32, 3)
    # Green was 0, red the number of the image.
    added += np.unique(image[..., 1]).tolist()
    indices += np.unique(image[..., 0] - image[..., 1]).tolist()
    labels += example['image/class/label'].int64_list.value
  return indices, labels, added


def test_a_set_holds_every_image_corrupted(config, tmp_path):
  directory = tmp_path / 'corrupted'
  shown = []
  corruptions.write_corrupted(
    config, str(directory), report=lambda *numbers: shown.append(numbers)
  )
  assert shown == [(1, 2), (2, 2)]
  for name, severity in (('fog', 1), ('frost', 5)):
    indices, labels, added = _read(directory, name, severity)
    assert sorted(indices) == list(range(7))
    assert labels == [index % 3 + 1 for index in indices]
    assert added == [severity] * 7
  # Interrupted, it is continued.
  lost = directory / 'frost' / '2-00000-of-00001'
  kept = directory / 'frost' / '3-00000-of-00001'
  content = lost.read_bytes()
  lost.unlink()
  os.utime(kept, (1, 1))
  corruptions.write_corrupted(config, str(directory))
  assert lost.read_bytes() == content
  assert kept.stat().st_mtime == 1


def test_a_part_of_the_images_is_spread_evenly(config, tmp_path):
  whole, part = tmp_path / 'whole', tmp_path / 'part'
  corruptions.write_corrupted(config, str(whole))
  corruptions.write_corrupted(config, str(part), num_images=3)
  indices, _, _ = _read(whole, 'fog', 1)
  assert _read(part, 'fog', 1)[0] == [indices[n] for n in (0, 2, 4)]


def test_what_cannot_be_written_is_refused(config, tmp_path):
  directory = str(tmp_path / 'corrupted')
  with pytest.raises(config_lib.ConfigError, match='1 to 7'):
    corruptions.write_corrupted(config, directory, num_images=8)
  corruptions.write_corrupted(config, directory, num_images=1)
  with pytest.raises(errors.DataError, match='seed is 0, not 1'):
    corruptions.write_corrupted(config, directory, seed=1, num_images=1)
  small = tiny_data.config(sources.data_dir(config.data))
  with pytest.raises(config_lib.ConfigError, match='at least 32'):
    corruptions.write_corrupted(small, str(tmp_path / 'small'))
  assert not tf.io.gfile.exists(str(tmp_path / 'small'))


def test_a_missing_package_is_named(image, monkeypatch):
  monkeypatch.setitem(sys.modules, 'imagecorruptions', None)
  corruptions._package.cache_clear()
  with pytest.raises(errors.DataError, match='requirements-robustness'):
    corruptions.corrupt(image, 'snow', 1, 0)
