import numpy as np
from PIL import Image

from efficientnet_advprop.training import attack_picture

_MARGIN, _HEADER = 4, 16


def test_the_grid_shows_the_difference_amplified(tmp_path):
  images = np.zeros([2, 32, 32, 3], np.float32)
  adversarial = images.copy()
  adversarial[1] += 4 * 2 / 255  # Four levels, so that the factor is 31.
  pixels = attack_picture.attack_grid(images, adversarial)
  assert pixels.shape == (2 * 100 + _HEADER, 3 * 100 + _MARGIN, 3)

  def tile(row, column):
    top, left = _HEADER + row * 100, _MARGIN + column * 100
    return pixels[top : top + 96, left : left + 96]

  assert (tile(0, 0) == 128).all() and (tile(0, 2) == 128).all()
  assert (tile(1, 1) == 132).all()
  assert (tile(1, 2) == np.rint(127.5 + 31 * 4).clip(0, 255)).all()
  path = tmp_path / 'x.png'
  attack_picture.write_png(str(path), pixels)
  np.testing.assert_array_equal(np.asarray(Image.open(path)), pixels)


def test_large_images_keep_their_size():
  images = np.zeros([1, 224, 224, 3], np.float32)
  assert attack_picture.attack_grid(images, images).shape == (244, 688, 3)
