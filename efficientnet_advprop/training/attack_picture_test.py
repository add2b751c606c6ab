import numpy as np
from PIL import Image

from efficientnet_advprop.training import attack_picture

_MARGIN, _HEADER, _CAPTION = 4, 16, 14


def _shown(images, adversarial):
  count = len(images)
  labels = np.arange(count)
  return attack_picture.Attacked(
    images, adversarial, labels, labels, (labels + 1) % 10
  )


def test_the_grid_shows_the_difference_amplified(tmp_path):
  images = np.zeros([2, 32, 32, 3], np.float32)
  adversarial = images.copy()
  adversarial[1] += 4 * 2 / 255  # Four levels, so that the factor is 31.
  pixels = attack_picture.draw(_shown(images, adversarial), 4)
  height = 100 + _CAPTION
  assert pixels.shape == (2 * height + _HEADER, 3 * 100 + _MARGIN, 3)

  def tile(row, column):
    top = _HEADER + row * height + _CAPTION
    left = _MARGIN + column * 100
    return pixels[top : top + 96, left : left + 96]

  assert (tile(0, 0) == 128).all() and (tile(0, 2) == 128).all()
  assert (tile(1, 1) == 132).all()
  assert (tile(1, 2) == np.rint(127.5 + 31 * 4).clip(0, 255)).all()
  path = tmp_path / 'x.png'
  attack_picture.write_png(str(path), pixels)
  np.testing.assert_array_equal(np.asarray(Image.open(path)), pixels)


def test_captions_show_epsilon_class_and_answers():
  images = np.zeros([1, 32, 32, 3], np.float32)
  shown = _shown(images, images)
  before = attack_picture.draw(shown, 4)
  captions = slice(_HEADER, _HEADER + _CAPTION)
  for other, rows in (
    (attack_picture.draw(shown, 2), slice(0, _HEADER)),
    (attack_picture.draw(shown._replace(labels=[7]), 4), captions),
    (attack_picture.draw(shown._replace(answers=[7]), 4), captions),
    (attack_picture.draw(shown._replace(adversarial_answers=[7]), 4), captions),
  ):
    differs = (other != before).any((1, 2))
    assert differs[rows].any() and differs.sum() == differs[rows].sum()


def test_large_images_keep_their_size():
  images = np.zeros([1, 224, 224, 3], np.float32)
  pixels = attack_picture.draw(_shown(images, images), 1)
  assert pixels.shape == (244 + _CAPTION, 688, 3)
