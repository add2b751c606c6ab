"""Tests of the range of pixels, and of attacks within it."""

import numpy as np
import pytest

from efficientnet_advprop.testing import tiny_keras

IMAGES = tiny_keras.IMAGES
LABELS = tiny_keras.LABELS
PGD = tiny_keras.PGD


def test_images_beyond_the_pixel_range_stop_before_an_update(keras):
  for pixel_range, message in (
    ((0, 1), 'leaves'),
    ((-1, 1), 'leaves'),
    ((-3e4, 3e4), 'hardly fills'),
  ):
    model = tiny_keras.compiled(keras, pixel_range=pixel_range)
    before = model.get_weights()
    with pytest.raises(ValueError, match=message) as error:
      model.fit(IMAGES, LABELS, verbose=0)
    assert '\n' not in str(error.value)
    tiny_keras.assert_near(model.get_weights(), before, 0)


def test_a_range_for_each_channel_scales_each_channels_attack(keras):
  low, high = [-103.939, -116.779, -123.68], [151.061, 138.221, 131.32]
  images = (IMAGES + np.array(low)).astype('float32')
  model = tiny_keras.compiled(
    keras, tiny_keras.network(keras), PGD, pixel_range=(low, high)
  )
  result = tiny_keras.attacked(model, LABELS, images)
  assert (result >= np.float32(low)).all() and (
    result <= np.float32(high)
  ).all()
  scales = np.array([1.0, 2.0, 4.0])
  model = tiny_keras.compiled(
    keras,
    tiny_keras.network(keras),
    PGD,
    pixel_range=([0, 0, 0], list(255 * scales)),
  )
  moved = np.abs(model.attack(IMAGES * scales, LABELS) - IMAGES * scales)
  np.testing.assert_allclose(moved.max((0, 1, 2)), 4 * scales, rtol=1e-4)


@pytest.mark.parametrize(
  'pixel_range', [None, 255, (1, 0), (0, 'a'), (0, np.inf)]
)
def test_a_pixel_range_that_is_none_is_refused(keras, pixel_range):
  with pytest.raises(ValueError, match='pixel_range: got') as error:
    tiny_keras.compiled(keras, pixel_range=pixel_range)
  assert '\n' not in str(error.value)
