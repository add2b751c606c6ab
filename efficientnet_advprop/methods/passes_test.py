import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.methods import passes

_RNG = np.random.default_rng(0)
_KERNEL = _RNG.normal(size=(12, 3)).astype(np.float32)


class _Linear:
  """A network of one matrix, which keeps what it was called with."""

  def __init__(self):
    self.calls = []

  def __call__(self, images, training=None, domain='main', seed=None):
    self.calls.append((training, domain, seed))
    return tf.reshape(images, [-1, 12]) @ _KERNEL


@pytest.fixture(name='batch')
def _batch():
  images = _RNG.uniform(-0.5, 0.5, (4, 2, 2, 3))
  return {
    'image': tf.constant(images, tf.float32),
    'label': tf.constant([0, 1, 2, 2]),
    'seed': tf.stack([tf.range(4), tf.range(4)], 1),
  }


def _attack(**settings):
  """One step of a unit of 0-255 from the image itself."""
  return config_lib.AttackConfig(
    **{'name': 'ifgsm', 'num_steps': 1, 'target': 'label', **settings}
  )


def _steps(batch, labels):
  """Signs of the gradient of pixels of softmax regression."""
  pixels = batch['image'].numpy().reshape(4, 12)
  exponentials = np.exp(pixels @ _KERNEL)
  shares = exponentials / exponentials.sum(1, keepdims=True)
  return np.sign((shares - labels) @ _KERNEL.T).reshape(4, 2, 2, 3)


def test_the_clean_pass_is_the_batch_through_the_main_norms(batch):
  clean = passes.clean_pass(batch)
  assert (clean.name, clean.domain, clean.weight) == ('clean', 'main', 1)
  assert clean.images is batch['image'] and clean.labels is batch['label']
  assert clean.seeds is batch['seed']
  batch['soft_label'] = tf.one_hot(batch['label'], 3)
  assert passes.clean_pass(batch).labels is batch['soft_label']


def test_every_pass_has_seeds_of_its_own(batch):
  found = [batch['seed'], *(passes.other_seeds(batch, i) for i in range(3))]
  assert len(np.unique(np.concatenate(found), axis=0)) == 4 * 4


@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_an_attack_goes_through_the_domain_with_the_seeds_of_its_pass(
  batch, mode
):
  network = _Linear()
  attack = _attack(batch_norm=mode)
  found = passes.adversarial_images(network, batch, attack, 'strong', 2)
  assert len(network.calls) == 1
  training, domain, seeds = network.calls[0]
  assert training == (mode == 'train') and domain == 'strong'
  np.testing.assert_array_equal(seeds, passes.other_seeds(batch, 2))
  np.testing.assert_allclose(
    (found - batch['image']) * 255 / 2,
    _steps(batch, np.eye(3)[batch['label']]),
    atol=1e-4,
  )


def test_an_attack_on_mixed_images_moves_away_from_both_labels(batch):
  shares = _RNG.dirichlet([1, 1, 1], 4).astype(np.float32)
  batch['soft_label'] = tf.constant(shares)
  found = passes.adversarial_images(_Linear(), batch, _attack(), 'main')
  expected = _steps(batch, shares)
  assert (expected != _steps(batch, np.eye(3)[batch['label']])).any()
  np.testing.assert_allclose(
    (found - batch['image']) * 255 / 2, expected, atol=1e-4
  )


def test_a_random_target_differs_from_the_hard_label(batch):
  """Among two classes it is the other one, whatever the shares are."""
  batch['label'] = tf.constant([0, 1, 1, 0])
  batch['soft_label'] = tf.constant([[0.6, 0.4], [0.3, 0.7]] * 2)
  seen = []

  def loss_fn(labels, logits):
    seen.append(labels)
    return tf.reduce_sum(logits)

  class Binary(_Linear):
    def __call__(self, *args, **kwargs):
      return super().__call__(*args, **kwargs)[:, :2]

  network = Binary()
  network.attack_options = {'loss_fn': loss_fn}
  passes.adversarial_images(network, batch, _attack(target='random'), 'main')
  (targets,) = seen
  np.testing.assert_array_equal(targets, 1 - batch['label'])


def test_a_scaled_attack_multiplies_the_loss_and_keeps_the_rest(batch):
  network = _Linear()
  network.attack_options = {'pixel_range': (0, 255)}
  scaled = passes.ScaledAttack(network, tf.constant(1024.0))
  assert scaled.attack_options['pixel_range'] == (0, 255)
  logits = scaled(batch['image'], training=True, domain='strong')
  assert network.calls == [(True, 'strong', None)]
  own = tf.keras.losses.sparse_categorical_crossentropy(
    batch['label'], logits, from_logits=True
  )
  loss = scaled.attack_options['loss_fn'](batch['label'], logits)
  np.testing.assert_allclose(loss, 1024 * tf.reduce_sum(own), rtol=1e-6)
  assert 'loss_fn' not in network.attack_options
