import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.methods import gradients
from efficientnet_advprop.methods import passes

_RNG = np.random.default_rng(0)
_IMAGES = _RNG.uniform(-1, 1, (8, 2, 2, 3)).astype(np.float32)
_LABELS = np.arange(8) % 3
_SMOOTHING = 0.1


class _Linear:
  """Softmax regression, whose gradient is known."""

  def __init__(self):
    self.kernel = tf.Variable(_RNG.normal(size=(12, 3)), dtype=tf.float32)
    self.trainable_variables = [self.kernel]

  def __call__(self, images, training=None, domain='main', seed=None):
    return tf.reshape(images, [-1, 12]) @ self.kernel

  def expected(self, images):
    """Returns the mean loss and its gradient, as numpy computes them."""
    pixels = images.reshape(8, 12)
    logits = pixels @ self.kernel.numpy()
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    labels = np.eye(3)[_LABELS] * (1 - _SMOOTHING) + _SMOOTHING / 3
    return -(labels * logs).sum() / 8, pixels.T @ (np.exp(logs) - labels) / 8


def _config(**train):
  return config_lib.from_dict(
    {
      'train': {'method': 'vanilla', 'label_smoothing': _SMOOTHING, **train},
      'data': {'num_classes': 3, 'augmentation': 'none'},
    }
  )


def _batch(images=_IMAGES, start=0, end=8):
  numbers = tf.range(start, end)
  return {
    'image': tf.constant(images[start:end]),
    'label': tf.constant(_LABELS[start:end], tf.int32),
    'seed': tf.stack([numbers, numbers], 1),
  }


@pytest.mark.parametrize('parts', [1, 2, 4])
def test_parts_add_up_to_the_gradient_of_the_mean_and_one_penalty(parts):
  network = _Linear()
  size = 8 // parts
  found = [
    gradients.of_part(
      network,
      _batch(start=size * part, end=size * (part + 1)),
      _config(),
      0,
      parts,
      lambda: tf.reduce_sum(network.kernel**2),
    )
    for part in range(parts)
  ]
  loss, gradient = network.expected(_IMAGES)
  kernel = network.kernel.numpy()
  np.testing.assert_allclose(
    sum(part.losses for part in found),
    [loss + (kernel**2).sum(), loss],
    rtol=1e-5,
  )
  (total,) = sum(np.array(part.gradients) for part in found)
  np.testing.assert_allclose(total, gradient + 2 * kernel, atol=1e-5)


def test_weights_and_the_scale_multiply_the_sum_of_the_passes():
  """The passes' own losses are as they are, and no loss is scaled."""
  network = _Linear()
  batch = _batch()
  others = -_IMAGES[::-1].copy()
  made = [
    passes.clean_pass(batch),
    passes.clean_pass(_batch(others))._replace(name='adversarial', weight=0.5),
  ]
  found = gradients.of_passes(
    network,
    made,
    network.trainable_variables,
    _config(loss_weight=3),
    8,
    1,
    lambda: tf.constant(0.25),
    tf.constant(1024.0),
  )
  (loss, gradient), (other_loss, other_gradient) = (
    network.expected(images) for images in (_IMAGES, others)
  )
  np.testing.assert_allclose(
    found.losses,
    [3 * (loss + 0.5 * other_loss) + 0.25, loss, other_loss],
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    found.gradients[0] / 1024,
    3 * (gradient + 0.5 * other_gradient),
    atol=1e-5,
  )


def test_losses_are_named_after_the_passes_and_the_added_domains():
  assert gradients.loss_names(_config()) == ['clean_loss']
  strong = {'strong': {'attack': {'epsilon': 4}}}
  config = config_lib.from_dict(
    {'train': {'method': 'fine_grained', 'domains': strong}}
  )
  assert gradients.loss_names(config) == [
    'clean_loss',
    'augmented_loss',
    'adversarial_loss',
    'strong_loss',
  ]
