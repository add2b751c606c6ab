import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.models import normalization

_X = np.random.default_rng(0).normal(2, 3, (8, 4, 4, 3)).astype(np.float32)


def _norm(domains=('adversarial', 'augmented')):
  norm = normalization.AuxBatchNormalization(domains, momentum=0.9)
  norm.build(tf.TensorShape([None, None, None, 3]))
  return norm


def _values(norm):
  return {weight.name: weight.numpy() for weight in norm.weights}


def test_every_domain_has_its_own_four_variables():
  norm = _norm()
  assert len(norm.weights) == 12
  assert len({weight.name for weight in norm.weights}) == 12
  main = [w.name for w in norm.weights if w.name.count('/') == 0]
  plain = tf.keras.layers.BatchNormalization()
  plain.build(tf.TensorShape([None, None, None, 3]))
  assert main == [weight.name for weight in plain.weights]


def test_a_pass_moves_only_the_statistics_of_its_domain():
  norm = _norm()
  before = _values(norm)
  norm(_X, training=True, domain='augmented')
  after = _values(norm)
  moved = {name for name in after if (after[name] != before[name]).any()}
  assert moved == {'augmented/moving_mean:0', 'augmented/moving_variance:0'}


@pytest.mark.parametrize('domain', ['main', 'adversarial'])
def test_training_follows_the_closed_form(domain):
  norm = _norm()
  outputs = norm(_X, training=True, domain=domain)
  mean, variance = _X.mean((0, 1, 2)), _X.var((0, 1, 2))
  expected = (_X - mean) / np.sqrt(variance + 1e-3)
  np.testing.assert_allclose(outputs, expected, atol=1e-5)
  holder = norm.norm_of(domain)
  np.testing.assert_allclose(holder.moving_mean, 0.1 * mean, rtol=1e-5)
  count = _X.size // 3
  unbiased = variance * count / (count - 1)
  np.testing.assert_allclose(
    holder.moving_variance, 0.9 + 0.1 * unbiased, rtol=1e-5
  )


def test_scale_and_offset_are_the_norm_at_inference():
  norm = _norm()
  for _ in range(3):
    norm(_X, training=True, domain='adversarial')
  scale, offset = norm.scale_and_offset('adversarial')
  outputs = norm(_X, training=False, domain='adversarial')
  np.testing.assert_allclose(outputs, _X * scale + offset, atol=1e-5)


def test_an_unknown_domain_is_told_the_known_ones():
  with pytest.raises(ValueError, match='main, adversarial, augmented'):
    _norm()(_X, domain='adverserial')


def test_names_are_unique():
  with pytest.raises(ValueError, match='repeat'):
    normalization.AuxBatchNormalization(('main',))


def test_without_auxiliary_domains_it_loads_a_plain_norm():
  plain = tf.keras.layers.BatchNormalization()
  plain(_X, training=True)
  norm = _norm(())
  norm.set_weights(plain.get_weights())
  np.testing.assert_array_equal(norm(_X), plain(_X))


def test_config_round_trip():
  copy = normalization.AuxBatchNormalization.from_config(_norm().get_config())
  assert copy.auxiliary_domains == ('adversarial', 'augmented')
  assert copy.momentum == 0.9
