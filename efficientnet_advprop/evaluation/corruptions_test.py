import sys

import numpy as np
import pytest

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.evaluation import corruptions

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
  # The caller's generator is as if nothing had been drawn.
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
  # CIFAR-10-C's at 32 pixels.
  small = grey[:32, :32]
  for severity, scale in zip((1, 5), (0.04, 0.10)):
    noisy = corruptions.corrupt(small, 'gaussian_noise', severity, 0) / 255.0
    assert np.std(noisy) == pytest.approx(scale, rel=0.05)
  darker = corruptions.corrupt(grey, 'brightness', 5, 0)
  np.testing.assert_allclose(darker / 255.0, 128 / 255 + 0.5, atol=0.01)


def test_unknown_names_and_small_images_are_refused(image):
  with pytest.raises(config_lib.ConfigError, match='did you mean snow'):
    corruptions.corrupt(image, 'snwo', 1, 0)
  with pytest.raises(errors.DataError, match='32 x 31 pixels'):
    corruptions.corrupt(image[:31], 'snow', 1, 0)


def test_a_missing_package_is_named(image, monkeypatch):
  monkeypatch.setitem(sys.modules, 'imagecorruptions', None)
  corruptions.package.cache_clear()
  with pytest.raises(errors.DataError, match='requirements-robustness'):
    corruptions.corrupt(image, 'snow', 1, 0)
