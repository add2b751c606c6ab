import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import pretrained
from efficientnet_advprop.base import randomness
from efficientnet_advprop.config import recipes
from efficientnet_advprop.layers import normalization
from efficientnet_advprop.methods import fast_advprop
from efficientnet_advprop.methods import gradients

_CLEAN = [0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 18]
_OTHERS = [4, 9, 14, 19]
_RATE, _DECAY = 0.1, 1e-2


def _config(*overrides):
  values = {
    'attack': {'epsilon': 1, 'target': 'label', 'batch_norm': 'train'},
    'data': {'num_classes': 10, 'num_train_images': 100},
    'train': {
      'method': 'fast_advprop',
      'batch_size': 20,
      'label_smoothing': 0,
      'weight_decay': _DECAY,
      'decay_norms': True,
    },
  }
  return config_lib.from_dict(recipes.apply_overrides(values, overrides))


def _network():
  tf.keras.utils.set_random_seed(0)
  return pretrained.build_model(
    'resnet-18', 10, image_size=16, width_coefficient=0.125, stem_stride=1
  )


def _batch(number):
  images = tf.random.stateless_uniform([20, 16, 16, 3], [number, 1], -1, 1)
  labels = tf.random.stateless_uniform([20], [number, 2], 0, 10, tf.int32)
  seeds = tf.stack([tf.fill([20], number), tf.range(20)], 1)
  return {'image': images, 'label': labels, 'seed': seeds}


class _Authors:
  """The authors' step, written again from the description of their code.

  Plain eager passes over one GPU's share after another; for each variable a sum
  of gradients and a count of images; stochastic gradient descent by hand.
  """

  def __init__(self, network, shares):
    self.network, self.shares = network, shares
    self.variables = network.trainable_variables
    self.velocity = [np.zeros(v.shape) for v in self.variables]
    kinds = {}
    for layer in network.submodules:
      if isinstance(layer, normalization.AuxBatchNormalization):
        for v in (layer.gamma, layer.beta):
          kinds[id(v)] = 'clean'
        for v in layer.auxiliary['adversarial'].trainable_variables:
          kinds[id(v)] = 'adv'
    self.kinds = [kinds.get(id(v), 'shared') for v in self.variables]
    assert {'clean', 'adv', 'shared'} == set(self.kinds)

  def _run(self, images, labels, domain, weight, own):
    """One pass; returns the gradient with respect to the images."""
    used = [kind in ('shared', own) for kind in self.kinds]
    for index, is_used in enumerate(used):
      self.counts[index] += weight * len(labels) * is_used
    pixels = []
    for share in np.split(np.arange(len(labels)), self.shares):
      x = tf.Variable(tf.gather(images, share))
      with tf.GradientTape() as tape:
        logits = self.network(x, training=True, domain=domain, seed=[0, 0])
        log_p = tf.nn.log_softmax(logits)
        chosen = tf.gather(log_p, tf.gather(labels, share), batch_dims=1)
        loss = -weight * tf.reduce_sum(chosen)
      found = tape.gradient(loss, [x, *self.variables])
      pixels.append(found[0])
      for index, (is_used, gradient) in enumerate(zip(used, found[1:])):
        if is_used:
          self.sums[index] += gradient.numpy().astype(np.float64)
    return tf.concat(pixels, 0)

  def step(self, batch, order):
    self.sums = [np.zeros(v.shape) for v in self.variables]
    self.counts = [0.0] * len(self.variables)
    images, labels = batch['image'], batch['label']
    clean, clean_labels = tf.gather(images, _CLEAN), tf.gather(labels, _CLEAN)
    self._run(clean, clean_labels, 'main', 1.0, 'clean')
    images, labels = tf.gather(images, _OTHERS), tf.gather(labels, _OTHERS)
    level = 2 / 255
    seeds = tf.gather(batch['seed'], _OTHERS)
    noise = randomness.uniform(seeds, [16, 16, 3], randomness.ATTACK_START)
    start = images + (2 * noise - 1) * level
    gradient = self._run(start, labels, 'adversarial', 0.5, 'adv')
    attacked = start + tf.sign(gradient) * level
    attacked = np.maximum(attacked, np.clip(images - level, -1, 1))
    attacked = np.minimum(attacked, np.clip(images + level, -1, 1))
    attacked, labels = tf.gather(attacked, order), tf.gather(labels, order)
    self._run(attacked, labels, 'adversarial', 0.5, 'adv')
    for index, variable in enumerate(self.variables):
      gradient = self.sums[index] / self.counts[index]
      gradient += _DECAY * variable.numpy()
      self.velocity[index] = 0.9 * self.velocity[index] + gradient
      variable.assign(variable - _RATE * self.velocity[index])


def _plain_norm(x, gamma, beta, epsilon, is_training):
  """The fused norm by its formula; its variance is unbiased."""
  assert is_training
  mean, variance = tf.nn.moments(x, [0, 1, 2])
  outputs = tf.nn.batch_normalization(x, mean, variance, beta, gamma, epsilon)
  count = tf.cast(tf.size(x) // x.shape[-1], tf.float32)
  return outputs, mean, variance * count / (count - 1)


@pytest.mark.parametrize(
  'groups, order', [(1, [0, 1, 2, 3]), (2, [0, 2, 1, 3])]
)
def test_two_steps_equal_the_authors(monkeypatch, groups, order):
  """The fused norm rounds otherwise, which turns signs of tiny gradients."""
  if groups > 1:
    plain = tf.compat.v1.nn
    monkeypatch.setattr(plain, 'fused_batch_norm', _plain_norm)
  config = _config(f'train.norm_groups={groups}')
  ours, theirs = _network(), _network()
  authors = _Authors(theirs, groups)
  optimizer = tf.keras.optimizers.SGD(_RATE, momentum=0.9)
  before = [variable.numpy() for variable in ours.trainable_variables]

  def penalty():
    squares = [tf.nn.l2_loss(v) for v in ours.trainable_variables]
    return _DECAY * tf.add_n(squares)

  for number in range(2):
    batch = _batch(number)
    result = gradients.of_part(
      ours, batch, config, optimizer.iterations, penalty=penalty
    )
    optimizer.apply_gradients(zip(result.gradients, ours.trainable_variables))
    authors.step(batch, order)
  moved = 0.0
  for one, other, start in zip(
    ours.trainable_variables, theirs.trainable_variables, before
  ):
    scale = max(1.0, np.abs(other).max())
    assert np.abs(one - other).max() <= 1e-5 * scale, one.name
    moved = max(moved, np.abs(one - start).max())
  assert moved > 0.02


def test_losses_are_means_over_their_own_images():
  network = _network()
  config, batch = _config(), _batch(3)
  found = gradients.of_part(network, batch, config, 0).losses
  names = gradients.loss_names(config)
  assert names == ['clean_loss', 'noise_loss', 'adversarial_loss']
  clean = tf.gather(batch['image'], _CLEAN)
  logits = network(clean, training=True, seed=[0, 0])
  labels = tf.gather(batch['label'], _CLEAN)
  expected = tf.keras.losses.SparseCategoricalCrossentropy(True)(labels, logits)
  np.testing.assert_allclose(found[1], expected, rtol=1e-5)
  # Sixteen clean images, and four twice at half the weight.
  total = (16 * found[1] + 2 * found[2] + 2 * found[3]) / 20
  np.testing.assert_allclose(found[0], total, rtol=1e-6)


def test_auxiliary_statistics_move_twice_and_main_ones_once():
  network = _network()
  norm = network.stem.norm
  norm.momentum = norm.auxiliary['adversarial'].momentum = 0.5
  gradients.of_part(network, _batch(0), _config(), 0)
  # From 1 by halves: what is left of the start gives the number of moves.
  left = {}
  for domain in ('main', 'adversarial'):
    variance = norm.norm_of(domain).moving_variance.numpy()
    left[domain] = variance.min()
  assert left['main'] >= 0.5 and 0.25 <= left['adversarial'] < 0.5


def test_the_split_is_the_same_on_any_number_of_replicas():
  whole = {'label': tf.range(40)}
  clean, others = fast_advprop.split(whole, 0.2)
  np.testing.assert_array_equal(others['label'], range(4, 40, 5))
  assert clean['label'].shape == [32]
  halves = [fast_advprop.split({'label': tf.range(20)}, 0.2)[1]['label']]
  np.testing.assert_array_equal(others['label'][:4], halves[0])
  with pytest.raises(config_lib.ConfigError, match='share of 8 images'):
    fast_advprop.split({'label': tf.range(8)}, 0.2)


@pytest.mark.parametrize(
  'override, message',
  [
    ('attack.target=random', 'attack.target: .*label with train.method=fast'),
    ('attack.batch_norm=eval', 'attack.batch_norm: .*train with'),
    ('attack.epsilon=4', 'attack.num_steps: got 5; allowed: 1 with'),
    ('attack.name=ifgsm', 'attack.name: .*pgd with'),
    ('train.auxiliary_weight=0', 'train.auxiliary_weight: got 0.*above 0'),
    ('train.fast_fraction=0.33', 'train.fast_fraction: .*20 images'),
  ],
)
def test_what_the_noise_pass_cannot_do_is_refused(override, message):
  with pytest.raises(config_lib.ConfigError, match=message):
    _config(override)


@pytest.mark.parametrize('groups', [1, 2, 4])
def test_dealing_spreads_each_group_over_all(groups):
  rows = tf.range(16)
  (dealt,) = fast_advprop.deal([rows], groups)
  assert sorted(dealt.numpy()) == list(range(16))
  old = dealt.numpy() // (16 // groups)
  for group in np.split(old, groups):
    assert set(group) == set(range(groups))
