import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import pretrained
from efficientnet_advprop.layers import normalization
from efficientnet_advprop.training import optimization


def _model(domains=('adversarial',)):
  return pretrained.build_model(
    'efficientnet-b0',
    10,
    domains,
    image_size=16,
    width_coefficient=0.25,
    depth_coefficient=0.1,
  )


def test_the_schedule_is_the_official_one():
  data = config_lib.DataConfig(num_train_images=1_281_167)
  schedule = optimization.learning_rate(config_lib.Config(data=data))
  epoch = 1_281_167 / 4096
  at = lambda epochs: float(schedule(tf.constant(int(epochs * epoch))))
  assert at(0) == 0
  step = int(2.5 * epoch)
  assert at(2.5) == pytest.approx(0.256 * step / int(5 * epoch), rel=1e-6)
  # The first value after the warm-up is decayed twice already.
  assert at(5.01) == pytest.approx(0.256 * 0.97**2, rel=1e-6)
  assert at(7.19) == pytest.approx(0.256 * 0.97**2, rel=1e-6)
  assert at(7.21) == pytest.approx(0.256 * 0.97**3, rel=1e-6)
  assert at(349.9) == pytest.approx(0.256 * 0.97**145, rel=1e-5)


def test_a_run_without_warm_up_starts_at_the_peak():
  values = {
    'data': {'num_train_images': 1_281_167},
    'train': {'warmup_epochs': 0, 'batch_size': 256},
  }
  schedule = optimization.learning_rate(config_lib.from_dict(values))
  assert float(schedule(tf.constant(0))) == pytest.approx(0.016)


@pytest.mark.parametrize('replicas', [1, 2])
def test_rmsprop_is_that_of_tensorflow_1(two_replicas, replicas):
  rng = np.random.default_rng(0)
  start = rng.normal(size=(5, 3)).astype(np.float32)
  one_device = tf.distribute.OneDeviceStrategy('CPU:0')
  strategy = two_replicas if replicas == 2 else one_device
  with strategy.scope():
    variable = tf.Variable(start)
    optimizer = optimization.TensorFlow1RMSprop(
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
  optimizer = optimization.create_optimizer(config_lib.from_dict(values), model)
  expected, velocity = 0.0, 0.0
  for rate in (0.1, 0.1, 0.01, 0.01, 0.001):
    optimizer.apply_gradients([(tf.constant([[1.0]]), weight)])
    velocity = 0.9 * velocity - rate
    expected += velocity
    assert weight.numpy() == pytest.approx(expected, rel=1e-5)


def test_everything_but_norms_decays():
  model = _model()
  decayed = optimization.decayed_variables(model)
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


@pytest.mark.parametrize(
  'step, decay', [(0, 0.1), (1, 2 / 11), (990, 0.991), (10**6, 0.9999)]
)
def test_the_average_follows_quickly_at_first(step, decay):
  value = optimization.average_decay(tf.constant(step), 0.9999)
  assert float(value) == pytest.approx(decay, rel=1e-5)


@pytest.mark.parametrize('replicas', [1, 2])
def test_the_average_covers_weights_and_all_statistics(two_replicas, replicas):
  one_device = tf.distribute.OneDeviceStrategy('CPU:0')
  strategy = two_replicas if replicas == 2 else one_device
  with strategy.scope():
    model, average = _model(), _model()
  rng = np.random.default_rng(0)
  expected = []
  for shadow, variable in zip(average.variables, model.variables):
    old, new = (rng.normal(size=variable.shape) for _ in range(2))
    shadow.assign(old)
    variable.assign(new)
    expected.append(0.75 * old + 0.25 * new)

  @tf.function
  def update():
    strategy.run(
      lambda: optimization.update_average(average, model, tf.constant(0.75))
    )

  update()
  assert len(expected) == len(model.variables)
  for shadow, value in zip(average.variables, expected):
    np.testing.assert_allclose(shadow.numpy(), value, rtol=1e-5, atol=1e-6)
