import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import models
from efficientnet_advprop.training import methods


@pytest.fixture(scope='module', name='model')
def _model():
  tf.keras.utils.set_random_seed(0)
  return models.build_model(
    'efficientnet-b0',
    10,
    image_size=16,
    width_coefficient=0.25,
    depth_coefficient=0.1,
  )


@pytest.fixture(name='batch')
def _batch():
  return {
    'image': tf.random.stateless_uniform([4, 16, 16, 3], [3, 4], -1, 1),
    'label': tf.constant([0, 1, 2, 9]),
    'seed': tf.stack([tf.range(4), tf.range(4)], 1),
  }


def test_every_method_names_its_passes_and_domains(model, batch):
  assert set(methods.METHODS) == set(config_lib.METHOD_DOMAINS)
  assert set(methods.METHODS) == set(methods.PASS_NAMES)
  for name, method in methods.METHODS.items():
    passes = method(model, batch, config_lib.AttackConfig())
    assert tuple(part.name for part in passes) == methods.PASS_NAMES[name]
    auxiliary = {part.domain for part in passes} - {'main'}
    assert auxiliary == set(config_lib.METHOD_DOMAINS[name])


def test_vanilla_is_the_clean_batch_through_the_main_norms(model, batch):
  (clean,) = methods.vanilla(model, batch, config_lib.AttackConfig())
  assert clean.domain == 'main'
  np.testing.assert_array_equal(clean.images, batch['image'])


def test_advprop_attacks_the_network_of_the_auxiliary_norms(model, batch):
  attack = config_lib.AttackConfig(epsilon=4)
  clean, adversarial = methods.advprop(model, batch, attack)
  np.testing.assert_array_equal(clean.images, batch['image'])
  assert adversarial.domain == 'adversarial'
  distance = np.abs(adversarial.images - batch['image']).max()
  assert distance == pytest.approx(4 * 2 / 255, abs=1e-6)
  assert (adversarial.seeds != clean.seeds).numpy().any()
  # Other auxiliary statistics change the attack, other main ones do not.
  main = model.stem.norm.moving_mean
  auxiliary = model.stem.norm.norm_of('adversarial').moving_mean
  main.assign_add(tf.ones_like(main))
  same = methods.advprop(model, batch, attack)[1].images
  np.testing.assert_array_equal(same, adversarial.images)
  auxiliary.assign_add(tf.ones_like(auxiliary))
  other = methods.advprop(model, batch, attack)[1].images
  assert (other != adversarial.images).numpy().any()


def test_smoothed_cross_entropy_follows_its_formula():
  logits = np.array([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0]], np.float32)
  log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  targets = np.full((2, 3), 0.1 / 3)
  targets[0, 0] += 0.9
  targets[1, 1] += 0.9
  losses = methods.smoothed_cross_entropy(tf.constant([0, 1]), logits, 0.1)
  np.testing.assert_allclose(losses, -(targets * log_p).sum(1), rtol=1e-6)
