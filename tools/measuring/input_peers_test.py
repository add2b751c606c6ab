"""The peers of the input path do the same work as ours."""

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from efficientnet_advprop.data import image_ops_test
from efficientnet_advprop.testing import pillow_operations
from tools.measuring import input_peers


@pytest.mark.parametrize('name', sorted(input_peers.OFFICIAL))
def test_the_official_structure_does_the_same_work_as_pillow(name):
  picture = image_ops_test.IMAGES['photograph']
  value = {'Posterize': 5, 'Solarize': 90, 'SolarizeAdd': 33, 'Color': 1.54}
  value.update({'Rotate': 12.0, 'TranslateY': 40.0})
  value = value.get(name, 0.12)
  result = input_peers.OFFICIAL[name](tf.constant(picture), value)
  pillow = pillow_operations.apply(Image.fromarray(picture), name, value)
  difference = np.abs(result.numpy().astype(int) - np.asarray(pillow)).max(-1)
  # Nearest sampling from pixel corners, not centres, picks other neighbours.
  if name in ('Rotate', 'ShearX', 'ShearY'):
    difference = difference[2:-2, 2:-2]
    assert np.median(difference) <= 8
  else:
    assert difference.max() <= 1
