import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import pretrained
from efficientnet_advprop.layers import normalization
from efficientnet_advprop.testing import tiny_runs
from efficientnet_advprop.training import optimizers


def _model(domains=('adversarial',)):
  return pretrained.build_model(
    'efficientnet-b0',
    10,
    domains,
    **tiny_runs.EFFICIENTNET,
  )


@pytest.mark.parametrize('replicas', [1, 2])
def test_rmsprop_is_that_of_tensorflow_1(two_replicas, replicas):
  rng = np.random.default_rng(0)
  start = rng.normal(size=(5, 3)).astype(np.float32)
  one_device = tf.distribute.OneDeviceStrategy('CPU:0')
  strategy = two_replicas if replicas == 2 else one_device
  with strategy.scope():
    variable = tf.Variable(start)
    optimizer = optimizers.TensorFlow1RMSprop(
      0.256, rho=0.9, momentum=0.9, epsilon=1e-3
    )
    optimizer.build([variable])

  @tf.function
  def update(gradient):
    strategy.run(
      lambda: optimizer.apply_gradients([(tf.identity(gradient), variable)])
    )

  expected = start.astype(np.float64)
  mean_square, momentum = np.ones((5, 3)), np.zeros((5, 3))
  for _ in range(8):
    gradient = rng.normal(size=(5, 3))
    update(tf.constant(gradient, tf.float32))
    gradient *= replicas  # The optimizer adds up what replicas hold.
    mean_square = 0.9 * mean_square + 0.1 * gradient**2
    momentum = 0.9 * momentum + 0.256 * gradient / np.sqrt(mean_square + 1e-3)
    expected -= momentum
  assert np.abs(expected - start).max() > 0.5
  np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_sgd_has_momentum_and_follows_the_schedule():
  values = {
    'train': {'optimizer': 'sgd', 'batch_size': 256, 'warmup_epochs': 0},
    'data': {'num_train_images': 256},
  }
  values['train'].update(learning_rate=0.1, decay_epochs=2, decay_factor=0.1)
  model = tf.keras.Sequential([tf.keras.layers.Dense(1, use_bias=False)])
  model.build([None, 1])
  (weight,) = model.trainable_variables
  weight.assign([[0.0]])
  optimizer = optimizers.create_optimizer(config_lib.from_dict(values), model)
  expected, velocity = 0.0, 0.0
  for rate in (0.1, 0.1, 0.01, 0.01, 0.001):
    optimizer.apply_gradients([(tf.constant([[1.0]]), weight)])
    velocity = 0.9 * velocity - rate
    expected += velocity
    assert weight.numpy() == pytest.approx(expected, rel=1e-5)


def test_everything_but_norms_decays():
  model = _model()
  decayed = optimizers.decayed_variables(config_lib.Config(), model)
  norms = [
    layer
    for layer in model.submodules
    if isinstance(layer, normalization.AuxBatchNormalization)
  ]
  # Two domains of two trainable variables for each norm.
  assert len(decayed) == len(model.trainable_variables) - 4 * len(norms)
  identities = {id(variable) for variable in decayed}
  biases = [model.classifier.bias, model.blocks[0].excite.reduce.bias]
  assert all(id(bias) in identities for bias in biases)
  everything = config_lib.from_dict({'train': {'decay_norms': True}})
  found = optimizers.decayed_variables(everything, model)
  assert len(found) == len(model.trainable_variables)


def _toy(**train):
  """A network of a kernel and a norm, and its optimizer."""
  values = dict(batch_size=256, warmup_epochs=0, decay_epochs=1000, **train)
  data = {'num_train_images': 256}
  config = config_lib.from_dict({'data': data, 'train': values})
  model = tf.keras.Sequential(
    [
      tf.keras.layers.Dense(2, use_bias=False),
      normalization.AuxBatchNormalization(()),
    ]
  )
  model.build([None, 2])
  model.layers[0].set_weights([np.array([[1.0, -0.5], [0.25, -2.0]])])
  return model, optimizers.create_optimizer(config, model), config


def test_adamw_decays_all_but_norms_by_itself():
  """The closed form of the first step: a signed step and a decay."""
  model, optimizer, config = _toy(
    optimizer='adamw', learning_rate=0.01, weight_decay=0.1
  )
  assert not optimizers.penalized_variables(config, model)
  kernel, gamma, _ = model.trainable_variables
  before = kernel.numpy()
  gradients = [tf.ones_like(v) * 3 for v in model.trainable_variables]
  optimizer.apply_gradients(zip(gradients, model.trainable_variables))
  expected = before * (1 - 0.01 * 0.1) - 0.01
  np.testing.assert_allclose(kernel.numpy(), expected, rtol=1e-5)
  np.testing.assert_allclose(gamma.numpy(), 1 - 0.01, rtol=1e-5)


@pytest.mark.parametrize('norm, factor', [(20.0, 1.0), (5.0, 0.5)])
def test_gradients_are_clipped_by_their_global_norm(norm, factor):
  model, optimizer, _ = _toy(optimizer='sgd', learning_rate=1, clip_norm=norm)
  kernel, gamma, beta = model.trainable_variables
  before = kernel.numpy()
  # The norm of all together is sqrt(4 * 16 + 4 * 9) = 10.
  gradients = [kernel * 0 + 4.0, gamma * 0 + 3.0, beta * 0 - 3.0]
  optimizer.apply_gradients(zip(gradients, model.trainable_variables))
  np.testing.assert_allclose(kernel, before - 4 * factor, rtol=1e-5)
  np.testing.assert_allclose(gamma, [1 - 3 * factor] * 2, rtol=1e-5)
