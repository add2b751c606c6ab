import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.data import translation


def _moved(picture, x, y, fill):
  """Left by `x` and up by `y` pixels, by slices alone."""
  height, width, _ = picture.shape
  result = np.full_like(picture, fill)
  for row in range(max(0, -y), min(height, height - y)):
    for column in range(max(0, -x), min(width, width - x)):
      result[row, column] = picture[row + y, column + x]
  return result


@pytest.mark.parametrize('uses_addons', [True, False])
def test_pixels_move_by_whole_numbers(monkeypatch, uses_addons):
  """Through tensorflow-addons and through the kernel beneath it."""
  if not uses_addons:
    monkeypatch.setattr(translation, 'image_module', lambda: None)
  elif translation.image_module() is None:
    pytest.skip('tensorflow-addons cannot be imported here')
  picture = np.random.default_rng(0).integers(0, 256, [21, 15, 3], np.uint8)
  for x, y in [(0, 0), (3, -4), (-14, 20), (-15, 2), (250, -250)]:
    found = translation.translate(tf.constant(picture), x, y, 128)
    np.testing.assert_array_equal(found, _moved(picture, x, y, 128))
