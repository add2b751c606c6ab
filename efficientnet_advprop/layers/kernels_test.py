import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.layers import convolution as convolution_lib
from efficientnet_advprop.layers import excitation
from efficientnet_advprop.layers import kernels
from efficientnet_advprop.models import factory
from efficientnet_advprop.testing import functions
from efficientnet_advprop.testing import tiny_runs


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
  x = tf.cast(2 * functions.random(*shape) + mean, dtype)

  def plain(x, gamma, beta):
    x, gamma, beta = (tf.cast(v, tf.float64) for v in (x, gamma, beta))
    mean, variance = tf.nn.moments(x, [0, 1, 2])
    x = tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3)
    return tf.cast(tf.nn.silu(x), dtype)

  functions.assert_equal(
    lambda x, gamma, beta: kernels.normalized_swish(x, gamma, beta, 1e-3)[0],
    plain,
    x,
    1 + 0.3 * functions.random(6),
    functions.random(6),
    tolerance=tolerance,
  )


@pytest.mark.parametrize(
  'dtype, tolerance', [(tf.float32, 3e-6), (tf.bfloat16, 0.02)]
)
def test_swish_equals_tensorflow_s(dtype, tolerance):
  x = tf.cast(5 * functions.random(3, 5, 7, 6), dtype)

  def plain(x):
    return tf.cast(tf.nn.silu(tf.cast(x, tf.float64)), dtype)

  functions.assert_equal(kernels.swish, plain, x, tolerance=tolerance)


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
  x = functions.random(4, 12, 12, 3)
  plain = _run(_network(False), x, training, domain)
  parts = _network(True)
  compiled = tf.function(_run)(parts, x, training, domain)
  assert len(plain) == len(compiled)
  for ours, theirs in zip(compiled, plain):
    # Behind a norm some gradients cancel to zero: a floor under the scale.
    scale = max(np.abs(theirs).max(), 0.1)
    np.testing.assert_allclose(ours / scale, theirs / scale, rtol=0, atol=2e-5)


def test_a_compiled_model_runs_in_bfloat16():
  tf.keras.mixed_precision.set_global_policy('mixed_bfloat16')
  try:
    model = factory.create_model(_TINY, 10, compiled=True)
  finally:
    tf.keras.mixed_precision.set_global_policy('float32')
  plain = factory.create_model(_TINY, 10)
  for ours, theirs in zip(model.variables, plain.variables):
    ours.assign(theirs)
  x = functions.random(4, 16, 16, 3)
  ours, theirs = model(x, training=False), plain(x, training=False)
  assert ours.dtype == tf.float32
  scale = np.abs(theirs).max()
  np.testing.assert_allclose(ours / scale, theirs / scale, atol=0.1)
  # Statistics of a few values amplify rounding: the norms are compared alone.
  assert np.isfinite(model(x, training=True, seed=[0, 0])).all()


def test_compiled_passes_repeat_bit_for_bit():
  parts, x = _network(True), functions.random(4, 12, 12, 3)
  moving = sum(len(part.non_trainable_weights) for part in parts)
  run = tf.function(lambda x: _run(parts, x, True, 'main')[:-moving])
  for one, two in zip(run(x), run(x)):
    np.testing.assert_array_equal(one, two)


_TINY = config_lib.model_config(
  'efficientnet-b0',
  {**tiny_runs.EFFICIENTNET, 'stem_stride': 1},
)
