"""The policies, against Pillow driven by the same draws."""

import collections

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.data import augmentation
from efficientnet_advprop.data import image_ops_test
from efficientnet_advprop.testing import pillow_operations

_PICTURE = image_ops_test.IMAGES['oblong photograph']
_SIZE = min(_PICTURE.shape[:2])
_SIGNED = ('Rotate', 'ShearX', 'ShearY', 'TranslateX', 'TranslateY')


def _draws(shape, seed):
  return tf.random.stateless_uniform(shape, seed, alg='philox').numpy()


def _by_pillow(image, name, value, sign):
  if name in _SIGNED and sign < 0.5:
    value = -value
  return pillow_operations.apply(image, name, value)


def _autoaugment_by_pillow(picture, seed):
  draws = _draws([5], seed)
  image = Image.fromarray(picture)
  sub_policy = augmentation.AUTOAUGMENT_V0[int(draws[0] * 25)]
  for stage, (name, probability, level) in enumerate(sub_policy):
    if draws[1 + stage] < probability:
      value = augmentation.autoaugment_magnitude(name, level, _SIZE)
      image = _by_pillow(image, name, value, draws[3 + stage])
  return np.asarray(image)


def _randaugment_by_pillow(picture, seed, layers, magnitude):
  draws = _draws([layers, 4], seed)
  image = Image.fromarray(picture)
  for layer in range(layers):
    name = augmentation.RANDAUGMENT_OPERATIONS[int(draws[layer, 0] * 16)]
    value = augmentation.randaugment_magnitude(name, magnitude, _SIZE)
    if name == 'Cutout':
      x = int(draws[layer, 2] * image.width)
      y = int(draws[layer, 3] * image.height)
      box = x - value, y - value, x + value, y + value
      image.paste(pillow_operations.GREY, box)
    else:
      image = _by_pillow(image, name, value, draws[layer, 1])
  return np.asarray(image)


def _mapped(config, seeds, parallel_calls):
  def augment(seed):
    return augmentation.augment(tf.constant(_PICTURE), seed, config)

  dataset = tf.data.Dataset.from_tensor_slices(seeds)
  dataset = dataset.map(augment, num_parallel_calls=parallel_calls)
  return list(dataset.as_numpy_iterator())


_SEEDS = np.stack([np.arange(120), 7 - 3 * np.arange(120)], 1).astype(np.int32)


def test_autoaugment_equals_pillow_for_the_same_draws():
  results = _mapped(config_lib.DataConfig(), _SEEDS, 1)
  chosen = {int(_draws([5], seed)[0] * 25) for seed in _SEEDS}
  assert len(chosen) == 25  # Every sub-policy is in the test.
  for seed, result in zip(_SEEDS, results):
    expected = _autoaugment_by_pillow(_PICTURE, seed)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize('magnitude', [0.0, 9.0, 10.0, 28.0])
def test_randaugment_equals_pillow_for_the_same_draws(magnitude):
  config = config_lib.DataConfig(
    augmentation='randaugment',
    randaugment_layers=2,
    randaugment_magnitude=magnitude,
  )
  seeds = _SEEDS[:60]
  for seed, result in zip(seeds, _mapped(config, seeds, 1)):
    expected = _randaugment_by_pillow(_PICTURE, seed, 2, magnitude)
    np.testing.assert_array_equal(result, expected)


def test_the_result_depends_on_the_seed_alone():
  config = config_lib.DataConfig()
  seeds = _SEEDS[:24]
  expected = _mapped(config, seeds, 1)
  parallel = _mapped(config, seeds, 4)
  picture = tf.constant(_PICTURE)
  for seed, one, other in zip(seeds, expected, parallel):
    np.testing.assert_array_equal(one, other)
    eager = augmentation.augment(picture, tf.constant(seed), config)
    np.testing.assert_array_equal(one, eager)
  assert len({image.tobytes() for image in expected}) > 12


def test_no_augmentation_is_the_identity():
  config = config_lib.DataConfig(augmentation='none')
  result = augmentation.augment(tf.constant(_PICTURE), [1, 2], config)
  np.testing.assert_array_equal(result, _PICTURE)


def test_the_policy_has_the_published_operations_and_probabilities():
  policy = augmentation.AUTOAUGMENT_V0
  assert len(policy) == 25 and all(len(pair) == 2 for pair in policy)
  counts = collections.Counter(name for pair in policy for name, _, _ in pair)
  assert counts == {
    'Equalize': 12,
    'Color': 9,
    'Rotate': 7,
    'Solarize': 8,
    'ShearY': 4,
    'ShearX': 2,
    'SolarizeAdd': 2,
    'Posterize': 2,
    'AutoContrast': 2,
    'Invert': 1,
    'TranslateY': 1,
  }
  first, second = zip(*policy)
  assert sum(p for _, p, _ in first) == pytest.approx(14.4)
  assert sum(p for _, p, _ in second) == pytest.approx(15.4)
  assert sum(level for _, _, level in first + second) == 240


@pytest.mark.parametrize(
  ('name', 'level', 'expected'),
  [
    ('ShearX', 9, 0.27),
    ('Rotate', 8, 24),
    ('Solarize', 3, 76),
    ('Solarize', 10, 256),
    ('SolarizeAdd', 7, 77),
    ('Color', 0, 0.1),
    ('Color', 9, 1.72),
    ('Posterize', 2, 4),
    ('Posterize', 6, 6),
    ('TranslateY', 9, 225),
  ],
)
def test_autoaugment_magnitudes(name, level, expected):
  value = augmentation.autoaugment_magnitude(name, level, 224)
  assert value == pytest.approx(expected)


@pytest.mark.parametrize(
  ('name', 'level', 'expected'),
  [
    ('TranslateX', 10, 100),
    ('Cutout', 10, 40),
    ('Rotate', 28, 84),
    ('Posterize', 10, 4),
    ('Posterize', 0, 8),
    ('Brightness', 30, 5.5),
  ],
)
def test_randaugment_magnitudes(name, level, expected):
  value = augmentation.randaugment_magnitude(name, level, 600)
  assert value == pytest.approx(expected)


def test_pixel_magnitudes_shrink_with_small_images_only():
  translate = augmentation.autoaugment_magnitude
  assert translate('TranslateY', 9, 672) == 225
  assert translate('TranslateY', 9, 112) == 112  # Python rounds half to even.
  assert augmentation.randaugment_magnitude('Cutout', 10, 112) == 20
