import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.layers import convolution

_RNG = np.random.default_rng(0)
_X = tf.constant(_RNG.normal(size=(4, 9, 9, 6)), tf.float32)


def _moved(layer):
  """The layer with statistics and gains that are not at their start."""
  layer.build(tf.TensorShape([None, None, None, 6]))
  for domain in ('main', 'adversarial'):
    norm = layer.norm.norm_of(domain)
    for weight in (norm.gamma, norm.moving_variance):
      weight.assign(_RNG.uniform(0.5, 2, weight.shape))
    for weight in (norm.beta, norm.moving_mean):
      weight.assign(_RNG.normal(size=weight.shape))
  return layer


@pytest.mark.parametrize('filters', [5, None])
@pytest.mark.parametrize('strides', [1, 2])
@pytest.mark.parametrize('domain', ['main', 'adversarial'])
@pytest.mark.parametrize('activation', [None, 'relu6'])
def test_the_folded_convolution_equals_the_two(
  filters, strides, domain, activation
):
  layer = _moved(
    convolution.NormalizedConv2D(
      filters,
      3,
      strides,
      activation=activation,
      auxiliary_domains=('adversarial',),
    )
  )
  with tf.GradientTape(persistent=True) as tape:
    tape.watch(_X)
    folded = layer(_X, training=False, domain=domain)
    convolved = layer._convolve(_X, layer.kernel)
    apart = layer.norm(convolved, training=False, domain=domain)
    if activation == 'relu6':
      apart = tf.clip_by_value(apart, 0, 6)
    one, two = (tf.reduce_sum(y**2) for y in (folded, apart))
  np.testing.assert_allclose(folded, apart, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(
    tape.gradient(one, _X), tape.gradient(two, _X), rtol=1e-4, atol=1e-3
  )


def test_the_initial_kernels_have_the_official_spread():
  layer = convolution.NormalizedConv2D(256, 3)
  layer.build(tf.TensorShape([None, None, None, 64]))
  expected = np.sqrt(2 / (9 * 256))
  assert np.std(layer.kernel) == pytest.approx(expected, rel=0.02)
  layer = convolution.NormalizedConv2D(None, 5)
  layer.build(tf.TensorShape([None, None, None, 512]))
  assert np.std(layer.kernel) == pytest.approx(np.sqrt(2 / 25), rel=0.03)


def test_symmetric_padding_is_pytorchs():
  """Numbers of torch.nn.functional's conv2d and max_pool2d, padding=1."""
  layer = convolution.NormalizedConv2D(1, 3, 2, symmetric=True, epsilon=0.0)
  images = tf.ones([1, 4, 4, 1])
  layer.build(images.shape)
  layer.kernel.assign(tf.ones([3, 3, 1, 1]))
  expected = [[4, 6], [6, 9]]
  np.testing.assert_array_equal(layer(images)[0, :, :, 0], expected)
  convolved = layer._convolve(images, layer.kernel)  # As training calls it.
  np.testing.assert_array_equal(convolved[0, :, :, 0], expected)

  images = tf.reshape(tf.range(16.0), [1, 4, 4, 1])
  padded = convolution.pad_symmetrically(images, 3)
  pooled = tf.nn.max_pool2d(padded, 3, 2, 'VALID')
  np.testing.assert_array_equal(pooled[0, :, :, 0], [[5, 7], [13, 15]])


@pytest.mark.parametrize('kernel_size', [1, 3, 7])
@pytest.mark.parametrize('size', [1, 8, 9])
def test_a_strided_convolution_equals_sums_over_padded_images(
  kernel_size, size
):
  layer = convolution.NormalizedConv2D(5, kernel_size, 2, symmetric=True)
  images = _RNG.normal(size=(2, size, size, 3)).astype(np.float32)
  layer.build(tf.TensorShape(images.shape))
  half = kernel_size // 2
  padded = np.pad(images, [(0, 0), (half, half), (half, half), (0, 0)])
  rows = range((size + 1) // 2)
  kernel = layer.kernel.numpy()
  expected = np.zeros([2, len(rows), len(rows), 5])
  for i in rows:
    for j in rows:
      window = padded[
        :, 2 * i : 2 * i + kernel_size, 2 * j : 2 * j + kernel_size
      ]
      expected[:, i, j] = np.tensordot(window, kernel, 3)
  outputs = layer(images) * (1 + 1e-3) ** 0.5  # The variance starts at 1.
  np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  'activation, expected',
  [
    (None, [-3, 0.5, 9]),
    ('relu', [0, 0.5, 9]),
    ('relu6', [0, 0.5, 6]),
    ('swish', [-3 / (1 + np.e**3), 0.5 / (1 + np.e**-0.5), 9 / (1 + np.e**-9)]),
  ],
)
@pytest.mark.parametrize('compiled', [False, True])
def test_activations_follow_their_formulas(activation, expected, compiled):
  layer = convolution.NormalizedConv2D(
    3, 1, activation=activation, epsilon=0.0, compiled=compiled
  )
  layer.build(tf.TensorShape([1, 1, 1, 1]))
  layer.kernel.assign([[[[-3, 0.5, 9]]]])
  outputs = layer(tf.ones([1, 1, 1, 1]))
  np.testing.assert_allclose(outputs[0, 0, 0], expected, rtol=1e-6)


def test_an_unknown_activation_is_refused():
  with pytest.raises(ValueError, match='allowed: relu, relu6, swish'):
    convolution.NormalizedConv2D(3, 1, activation='gelu')
