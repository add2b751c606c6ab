"""Closed forms of what is not one call of Pillow."""

import numpy as np
from PIL import Image
import pytest

from efficientnet_advprop.testing import pillow_operations

_PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)


def _apply(name, value):
  image = Image.fromarray(_PIXELS)
  return np.asarray(pillow_operations.apply(image, name, value)).astype(int)


def test_solarize_add_brightens_the_darker_half():
  dark = _PIXELS < 128
  expected = np.where(dark, np.minimum(_PIXELS + 110, 255), _PIXELS)
  np.testing.assert_array_equal(_apply('SolarizeAdd', 110), expected)


def test_cutout_greys_a_square_and_leaves_the_image_it_is_given():
  expected = _PIXELS.copy()
  expected[3:9, 2:8] = pillow_operations.GREY
  np.testing.assert_array_equal(_apply('Cutout', 3), expected)


@pytest.mark.parametrize(
  'name, shift', [('TranslateX', (0, 3)), ('TranslateY', (3, 0))]
)
def test_translation_moves_the_image_and_fills_with_grey(name, shift):
  down, right = shift
  expected = np.full_like(_PIXELS, pillow_operations.GREY)
  expected[: 12 - down, : 10 - right] = _PIXELS[down:, right:]
  np.testing.assert_array_equal(_apply(name, 3), expected)
