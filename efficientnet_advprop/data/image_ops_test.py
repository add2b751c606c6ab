"""Every operation equals Pillow's, bit for bit, compiled or not."""

import numpy as np
from PIL import Image
from PIL import ImageOps
import pytest
import tensorflow as tf

from efficientnet_advprop.data import image_ops
from efficientnet_advprop.testing import pillow_operations


def _photograph(index, width, height):
  """A real photograph where scikit-learn is installed, else 1/f noise."""
  try:
    from sklearn import datasets

    picture = datasets.load_sample_images().images[index]
  except ImportError:
    rng = np.random.default_rng(index)
    y, x = np.fft.fftfreq(300), np.fft.fftfreq(400)
    falloff = 1 / np.maximum(np.hypot(y[:, None], x), 1 / 400)[..., None]
    noise = np.fft.fft2(rng.normal(size=(300, 400, 3)), axes=(0, 1))
    values = np.fft.ifft2(noise * falloff, axes=(0, 1)).real
    values = 110 + 50 * values / values.std()
    picture = np.clip(values, 0, 255).astype(np.uint8)
  picture = Image.fromarray(picture).crop((60, 20, 360, 280))
  return np.array(picture.resize((width, height)))


def _images():
  rng = np.random.default_rng(0)
  two_valued = np.full([40, 50, 3], 7, np.uint8)
  two_valued[3, 4] = 200, 7, 8
  return {
    'photograph': _photograph(0, 224, 224),
    'oblong photograph': _photograph(1, 150, 211),
    'dull photograph': _photograph(1, 96, 96) // 3 + 90,
    'noise': rng.integers(0, 256, [64, 65, 3], dtype=np.uint8),
    'one colour': np.full([32, 32, 3], [0, 99, 255], np.uint8),
    'two colours': two_valued,
  }


IMAGES = _images()


def _rotate(image, degrees):
  height, width, _ = image.shape
  return image_ops.affine(image, image_ops.rotation(degrees, height, width))


_OURS = {
  'AutoContrast': lambda image, _: image_ops.autocontrast(image),
  'Equalize': lambda image, _: image_ops.equalize(image),
  'Invert': lambda image, _: image_ops.invert(image),
  'Posterize': image_ops.posterize,
  'Solarize': image_ops.solarize,
  'SolarizeAdd': image_ops.solarize_add,
  'Color': image_ops.color,
  'Contrast': image_ops.contrast,
  'Brightness': image_ops.brightness,
  'Sharpness': image_ops.sharpness,
  'Rotate': _rotate,
  'ShearX': lambda i, v: image_ops.affine(i, image_ops.shear(v, 0)),
  'ShearY': lambda i, v: image_ops.affine(i, image_ops.shear(0, v)),
  'TranslateX': lambda i, v: image_ops.translate(i, v, 0),
  'TranslateY': lambda i, v: image_ops.translate(i, 0, v),
}

_BLENDS = ('Color', 'Contrast', 'Brightness', 'Sharpness')
_FACTORS = [0.1 + 0.18 * level for level in range(11)] + [0.0, 1.0, 5.5]
_SHEARS = [-0.3, -0.21, -0.12, 0, 0.09, 0.27]
_SHIFTS = [-250, -7, 0, 1, 33, 225]
_MAGNITUDES = {
  'AutoContrast': [0],
  'Equalize': [0],
  'Invert': [0],
  'Posterize': list(range(1, 9)),
  'Solarize': [0, 1, 76, 128, 255, 256],
  'SolarizeAdd': [0, 33, 77, 110],
  **dict.fromkeys(_BLENDS, _FACTORS),
  'Rotate': [sign * 3 * level for sign in (1, -1) for level in range(11)],
  'ShearX': _SHEARS,
  'ShearY': _SHEARS,
  'TranslateX': _SHIFTS,
  'TranslateY': _SHIFTS,
}


@pytest.mark.parametrize('name', sorted(_OURS))
def test_equals_pillow(name):
  worst = 0
  for picture in IMAGES.values():
    for magnitude in _MAGNITUDES[name]:
      ours = _OURS[name](tf.constant(picture), magnitude).numpy()
      pillow = Image.fromarray(picture)
      pillow = pillow_operations.apply(pillow, name, magnitude)
      assert ours.dtype == np.uint8 and ours.shape == picture.shape
      worst = max(worst, np.abs(ours.astype(int) - np.asarray(pillow)).max())
  assert worst == 0


@pytest.mark.parametrize('name', sorted(_OURS))
def test_equal_with_and_without_xla_and_in_tf_data(name, monkeypatch):
  picture = tf.constant(IMAGES['oblong photograph'])
  magnitude = _MAGNITUDES[name][-2:][0]

  def operation(image):
    return _OURS[name](image, magnitude)

  compiled = operation(picture).numpy()
  dataset = tf.data.Dataset.from_tensors(picture).map(operation)
  mapped = next(dataset.as_numpy_iterator())
  monkeypatch.setattr(image_ops, '_xla_available', lambda: False)
  plain = tf.function(operation)(picture).numpy()
  np.testing.assert_array_equal(compiled, mapped)
  np.testing.assert_array_equal(compiled, plain)


def test_blend_equals_pillow_for_every_pair_of_values():
  degenerate, values = np.meshgrid(np.arange(256), np.arange(256))
  blend = tf.function(image_ops._blend, jit_compile=True)
  for factor in _FACTORS:
    ours = blend(
      tf.constant(degenerate, tf.int32),
      tf.constant(values, tf.int32),
      tf.constant(factor, tf.float32),
    )
    pillow = Image.blend(
      Image.fromarray(degenerate.astype(np.uint8)),
      Image.fromarray(values.astype(np.uint8)),
      factor,
    )
    np.testing.assert_array_equal(ours.numpy(), np.asarray(pillow))


def test_autocontrast_equals_pillow_for_many_ranges():
  pairs = [(a, b) for a in range(0, 250, 9) for b in range(a + 1, 256, 12)]
  values = np.arange(256)
  for start in range(0, len(pairs) - 2, 3):  # A range for each channel.
    channels = [values.clip(*pair) for pair in pairs[start : start + 3]]
    picture = np.stack(channels, -1)[np.newaxis].astype(np.uint8)
    ours = image_ops.autocontrast(tf.constant(picture)).numpy()
    pillow = ImageOps.autocontrast(Image.fromarray(picture))
    np.testing.assert_array_equal(ours, np.asarray(pillow))


def test_rotation_leaves_the_centre_and_turns_counterclockwise():
  picture = np.zeros([5, 5, 3], np.uint8)
  picture[2, 4] = 255
  turned = _rotate(tf.constant(picture), 90).numpy()
  assert turned[0, 2, 0] == 255


def test_outside_is_grey():
  picture = tf.zeros([8, 8, 3], tf.uint8)
  moved = image_ops.translate(picture, 3, 0).numpy()
  assert (moved[:, 5:] == 128).all() and (moved[:, :5] == 0).all()


def test_cutout_greys_a_square_and_stays_inside():
  picture = tf.zeros([9, 12, 3], tf.uint8)
  cut = image_ops.cutout(picture, 2, 6, 4).numpy()
  expected = np.zeros([9, 12, 3], np.uint8)
  expected[2:6, 4:8] = 128
  np.testing.assert_array_equal(cut, expected)
  corner = image_ops.cutout(picture, 2, 0, 0).numpy()
  assert (corner == 128).all(-1).sum() == 4


def test_an_image_too_small_to_sharpen_stays():
  picture = tf.constant(IMAGES['noise'][:2, :2])
  np.testing.assert_array_equal(image_ops.sharpness(picture, 1.9), picture)
