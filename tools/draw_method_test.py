import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.base import errors
from tools import draw_method
from tools.drawing import method


def test_the_surest_of_the_changed_answers_is_picked():
  labels = np.array([0, 0, 1, 1])
  clean = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7]])
  adversarial = np.array([[0.8, 0.2], [0.1, 0.9], [0.9, 0.1], [0.6, 0.4]])
  # The first stays right, the third was never right.
  assert draw_method.pick(clean, adversarial, labels) == 1
  with pytest.raises(errors.DataError, match='changes no answer'):
    draw_method.pick(clean, clean, labels)


def test_the_picture_shows_the_images_and_their_amplified_difference(tmp_path):
  clean = np.zeros([8, 8, 3], np.float32)
  adversarial = clean + 4 / 127.5
  path = tmp_path / 'method.png'
  method.draw(str(path), clean, adversarial, ('ring, 76%', 'cross, 55%'), 4)
  pixels = tf.io.decode_png(path.read_bytes(), 3).numpy()
  height, width, _ = pixels.shape
  row = pixels[height // 2]
  # Of each tile a pixel in its middle: grey, 4 levels more, 20 times as many.
  columns = [round(width * (0.012 + 0.158 * n + 0.074)) for n in range(3)]
  shown = row[columns].astype(int)
  np.testing.assert_allclose(shown[:, 0], [127.5, 131.5, 207.5], atol=1)
