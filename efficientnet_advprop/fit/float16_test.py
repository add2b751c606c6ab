"""Tests of networks that compute in float16, with Keras 2 and Keras 3."""

import numpy as np
import pytest

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.fit import advprop_model
from efficientnet_advprop.fit import keras_namespace

_RANDOM = np.random.default_rng(0)
_IMAGES = _RANDOM.uniform(16, 239, (16, 8, 8, 3)).astype('float32')
_ATTACK = config_lib.AttackConfig(
  name='fgsm', epsilon=4, num_steps=1, step_size=4, target='label'
)


def _network(keras, dtype):
  layers = keras.layers
  keras.utils.set_random_seed(0)
  inputs = keras.Input((8, 8, 3))
  x = layers.Rescaling(1 / 128, -1, dtype=dtype)(inputs)
  for name in ('norm', 'norm2'):
    x = layers.Conv2D(8, 3, dtype=dtype)(x)
    x = layers.BatchNormalization(name=name, dtype=dtype)(x)
    x = layers.Activation('swish', dtype=dtype)(x)
  x = layers.GlobalAveragePooling2D(dtype=dtype)(x)
  return keras.Model(inputs, layers.Dense(5, dtype='float32', name='top')(x))


def _compiled(keras, dtype, optimizer=None):
  """A model, and labels of which its network is as sure as in training."""
  network = _network(keras, dtype)
  logits = _network(keras, 'float32').predict(_IMAGES, verbose=0)
  top = np.sort(logits, -1)
  kernel, bias = network.get_layer('top').get_weights()
  factor = 10 / np.max(top[:, -1] - top[:, -2])
  network.get_layer('top').set_weights([kernel * factor, bias * factor])
  model = advprop_model.AdvPropModel(network, _ATTACK, pixel_range=(0, 255))
  model.compile(
    optimizer or keras.optimizers.SGD(0.1),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
  )
  return model, logits.argmax(-1)


def _unmoved(model, labels):
  """The share of pixels without a sign, over the images of one batch."""
  return np.mean(model.attack(_IMAGES, labels) == _IMAGES)


def test_the_attack_scales_the_loss(keras, monkeypatch):
  """As strong as in float32, and weak without the scale."""
  exact, labels = _compiled(keras, 'float32')
  model, _ = _compiled(keras, 'mixed_float16')
  assert hasattr(model.optimizer, 'inner_optimizer')
  model.optimizer.build(model.trainable_variables)
  model.optimizer.built = True
  _scale_of(model.optimizer).assign(2.0**11)  # As training finds it.
  assert not hasattr(exact.optimizer, 'inner_optimizer')
  moved = exact.attack(_IMAGES, labels)
  assert model.attack(_IMAGES, labels).dtype == moved.dtype == 'float32'
  assert _unmoved(model, labels) <= _unmoved(exact, labels) + 1e-3
  assert np.mean(model.attack(_IMAGES, labels) == moved) > 0.97
  monkeypatch.setattr(keras_namespace, 'loss_scale', lambda *_: None)
  assert _unmoved(model, labels) > _unmoved(exact, labels) + 5e-3


def test_an_optimizer_that_does_not_scale_leaves_the_attack_its_scale(keras):
  model, labels = _compiled(keras, 'mixed_float16')
  model.optimizer = keras.optimizers.SGD(0.1)
  assert _unmoved(model, labels) < 1e-2


def _scale_of(optimizer):
  """The variable of Keras 2 or Keras 3."""
  if hasattr(optimizer, 'dynamic_scale'):
    return optimizer.dynamic_scale
  return optimizer._loss_scale.current_loss_scale


@pytest.mark.parametrize('scale, is_made', [(2.0**60, False), (2.0**8, True)])
def test_a_step_that_overflows_is_skipped_and_breaks_nothing(
  keras, scale, is_made
):
  model, labels = _compiled(keras, 'mixed_float16')
  model.optimizer.build(model.trainable_variables)
  model.optimizer.built = True
  _scale_of(model.optimizer).assign(scale)
  before = [np.array(weight) for weight in model.trainable_variables]
  settings = dict(batch_size=16, epochs=1, verbose=0)
  history = model.fit(_IMAGES, labels, **settings).history
  for name in ('loss', 'clean_loss', 'adversarial_loss'):
    assert np.isfinite(history[name]).all()
  for weight in model.weights:
    assert np.isfinite(np.array(weight)).all()
    assert np.array(weight).dtype == 'float32'
  changed = [
    (np.array(weight) != old).any()
    for weight, old in zip(model.trainable_variables, before)
  ]
  assert any(changed) is is_made and all(changed) is is_made
  halved = scale if is_made else scale / 2
  assert float(np.array(_scale_of(model.optimizer))) == halved
