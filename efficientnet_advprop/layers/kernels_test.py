import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.layers import convolution as convolution_lib
from efficientnet_advprop.layers import excitation
from efficientnet_advprop.layers import kernels
from efficientnet_advprop.models import factory
from efficientnet_advprop.testing import tiny_runs

_RNG = np.random.default_rng(0)


def _random(*shape):
  return tf.constant(_RNG.normal(size=shape), tf.float32)


def _gradients(function, *arguments):
  with tf.GradientTape() as tape:
    tape.watch(arguments)
    outputs = function(*arguments)
    weights = np.random.default_rng(1).normal(size=outputs.shape)
    total = tf.reduce_sum(tf.cast(outputs, tf.float32) * weights)
  return [outputs, *tape.gradient(total, arguments)]


def _assert_equal(one, two, *arguments, tolerance=3e-6):
  """Two functions and their gradients, relative to the greatest value."""
  for ours, theirs in zip(
    _gradients(tf.function(one), *arguments), _gradients(two, *arguments)
  ):
    assert ours.dtype == theirs.dtype
    ours, theirs = tf.cast(ours, tf.float32), tf.cast(theirs, tf.float32)
    scale = np.abs(theirs).max()
    assert scale > 0
    np.testing.assert_allclose(
      ours / scale, theirs / scale, rtol=0, atol=tolerance
    )


@pytest.mark.parametrize(
  'size, strides, height, width',
  [(3, 1, 4, 4), (3, 2, 9, 7), (5, 2, 9, 8)]
  + [(5, 1, *shape) for shape in ((1, 1), (2, 2), (4, 3), (9, 7))]
  + [(5, 2, *shape) for shape in ((1, 1), (2, 2), (4, 3), (33, 2))]
  + [(3, 1, *shape) for shape in ((1, 1), (2, 2), (1, 5))],
)
def test_depthwise_convolution_equals_tensorflow_s(
  size, strides, height, width
):
  _assert_equal(
    lambda x, k: kernels.depthwise_convolution(x, k, strides),
    lambda x, k: tf.nn.depthwise_conv2d(x, k, [1, strides, strides, 1], 'SAME'),
    _random(3, height, width, 6),
    _random(size, size, 6, 1),
  )


@pytest.mark.parametrize('shape', [(4, 8, 8, 6), (3, 5, 7, 6)])
@pytest.mark.parametrize(
  'dtype, mean, tolerance',
  [
    (tf.float32, 0.0, 3e-6),
    # Sums of squares would lose all digits here.
    (tf.float32, 100.0, 3e-6),
    (tf.bfloat16, 1.0, 0.02),
  ],
)
def test_normalized_swish_equals_norm_and_swish(shape, dtype, mean, tolerance):
  x = tf.cast(2 * _random(*shape) + mean, dtype)

  def plain(x, gamma, beta):
    x, gamma, beta = (tf.cast(v, tf.float64) for v in (x, gamma, beta))
    mean, variance = tf.nn.moments(x, [0, 1, 2])
    x = tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3)
    return tf.cast(tf.nn.silu(x), dtype)

  _assert_equal(
    lambda x, gamma, beta: kernels.normalized_swish(x, gamma, beta, 1e-3)[0],
    plain,
    x,
    1 + 0.3 * _random(6),
    _random(6),
    tolerance=tolerance,
  )


@pytest.mark.parametrize(
  'dtype, tolerance', [(tf.float32, 3e-6), (tf.bfloat16, 0.02)]
)
def test_swish_equals_tensorflow_s(dtype, tolerance):
  x = tf.cast(5 * _random(3, 5, 7, 6), dtype)

  def plain(x):
    return tf.cast(tf.nn.silu(tf.cast(x, tf.float64)), dtype)

  _assert_equal(kernels.swish, plain, x, tolerance=tolerance)


def _network(compiled, strength=0.3):
  """A stem, a squeeze-excitation and a depthwise convolution, not at rest."""
  settings = dict(auxiliary_domains=('adversarial',), compiled=compiled)
  parts = [
    convolution_lib.NormalizedConv2D(8, 3, 2, activation='swish', **settings),
    convolution_lib.NormalizedConv2D(None, 5, activation='swish', **settings),
    excitation.SqueezeExcitation(3, compiled),
    convolution_lib.NormalizedConv2D(4, 1, **settings),
  ]
  rng = np.random.default_rng(3)
  for part, channels in zip(parts, (3, 8, 8, 8)):
    convolution_lib.build(part, channels)
    for weight in part.weights:
      noise = rng.normal(size=weight.shape)
      if 'kernel' in weight.name:
        weight.assign(strength * noise)
      else:
        weight.assign(weight.numpy() + strength * np.abs(noise))
  return parts


def _run(parts, x, training, domain):
  with tf.GradientTape() as tape:
    tape.watch(x)
    y = x
    for part in parts:
      is_gate = isinstance(part, excitation.SqueezeExcitation)
      y = part(y) if is_gate else part(y, training=training, domain=domain)
    loss = tf.reduce_sum(y * tf.sin(tf.range(4.0) + y))
  weights = [w for part in parts for w in part.trainable_weights]
  gradients = tape.gradient(loss, [x, *weights], unconnected_gradients='zero')
  return [y, *gradients, *(w for p in parts for w in p.non_trainable_weights)]


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('domain', ['main', 'adversarial'])
def test_compiled_layers_equal_the_plain_ones(training, domain):
  x = _random(4, 12, 12, 3)
  plain = _run(_network(False), x, training, domain)
  parts = _network(True)
  compiled = tf.function(_run)(parts, x, training, domain)
  assert len(plain) == len(compiled)
  for ours, theirs in zip(compiled, plain):
    # Behind a norm some gradients cancel to zero: a floor under the scale.
    scale = max(np.abs(theirs).max(), 0.1)
    np.testing.assert_allclose(ours / scale, theirs / scale, rtol=0, atol=2e-5)


def test_a_compiled_model_runs_in_bfloat16():
  tf.keras.utils.set_random_seed(0)
  tf.keras.mixed_precision.set_global_policy('mixed_bfloat16')
  try:
    model = factory.create_model(_TINY, 10, compiled=True)
  finally:
    tf.keras.mixed_precision.set_global_policy('float32')
  plain = factory.create_model(_TINY, 10)
  for ours, theirs in zip(model.variables, plain.variables):
    ours.assign(theirs)
  x = _random(4, 16, 16, 3)
  ours, theirs = model(x, training=False), plain(x, training=False)
  assert ours.dtype == tf.float32
  scale = np.abs(theirs).max()
  np.testing.assert_allclose(ours / scale, theirs / scale, atol=0.1)
  # Statistics of a few values amplify rounding: the norms are compared alone.
  assert np.isfinite(model(x, training=True, seed=[0, 0])).all()


def test_compiled_passes_repeat_bit_for_bit():
  parts, x = _network(True), _random(4, 12, 12, 3)
  moving = sum(len(part.non_trainable_weights) for part in parts)
  run = tf.function(lambda x: _run(parts, x, True, 'main')[:-moving])
  for one, two in zip(run(x), run(x)):
    np.testing.assert_array_equal(one, two)


_TINY = config_lib.model_config(
  'efficientnet-b0',
  {**tiny_runs.EFFICIENTNET, 'stem_stride': 1},
)
