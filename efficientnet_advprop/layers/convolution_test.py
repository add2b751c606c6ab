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


def test_pixels_less_the_mean_of_imagenet():
  levels = _RNG.uniform(0, 255, (2, 3, 3, 3)).astype(np.float32)
  images = levels * 2 / 255 - 1
  assert convolution.normalized_pixels(images, 'advprop') is images
  mean = np.array([123.675, 116.28, 103.53])  # As published, of 0-255 pixels.
  deviation = np.array([58.395, 57.12, 57.375])
  np.testing.assert_allclose(
    convolution.normalized_pixels(images, 'imagenet'),
    (levels - mean) / deviation,
    atol=1e-5,
  )


@pytest.mark.parametrize('filters', [5, None])
@pytest.mark.parametrize('strides', [1, 2])
@pytest.mark.parametrize('domain', ['main', 'adversarial'])
def test_the_folded_convolution_equals_the_two(filters, strides, domain):
  layer = _moved(
    convolution.NormalizedConv2D(
      filters, 3, strides, auxiliary_domains=('adversarial',)
    )
  )
  with tf.GradientTape(persistent=True) as tape:
    tape.watch(_X)
    folded = layer(_X, training=False, domain=domain)
    convolved = layer._convolve(_X, layer.kernel)
    apart = layer.norm(convolved, training=False, domain=domain)
    one, two = (tf.reduce_sum(y**2) for y in (folded, apart))
  np.testing.assert_allclose(folded, apart, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(
    tape.gradient(one, _X), tape.gradient(two, _X), rtol=1e-4, atol=1e-3
  )


@pytest.mark.parametrize('replicas', [1, 2])
def test_what_is_recomputed_equals_what_is_stored(two_replicas, replicas):
  """Outputs, gradients, and statistics that move once."""
  one_device = tf.distribute.OneDeviceStrategy('CPU:0')
  strategy = two_replicas if replicas == 2 else one_device
  runs = []
  for call in (convolution.stored, convolution.recomputed):
    tf.keras.utils.set_random_seed(0)
    with strategy.scope():
      layer = convolution.NormalizedConv2D(
        5,
        3,
        swish=True,
        auxiliary_domains=('adversarial',),
        synchronized=True,
      )
      layer.build(tf.TensorShape([None, None, None, 6]))

    def step(x, layer=layer, call=call):
      with tf.GradientTape() as tape:
        tape.watch(x)
        y = call(layer, x, training=True, domain='adversarial')
        loss = tf.reduce_sum(y * tf.sin(y + tf.range(5.0)))
      norm = layer.norm.norm_of('adversarial')
      sources = [x, layer.kernel, norm.gamma, norm.beta]
      return [y, *tape.gradient(loss, sources)]

    results = strategy.run(tf.function(step), args=(_X,))
    results = [strategy.experimental_local_results(r)[0] for r in results]
    runs.append([*results, *layer.non_trainable_variables])
  stored, recomputed = runs
  assert np.abs(stored[-2]).max() > 0  # The auxiliary mean has moved.
  for ours, theirs in zip(recomputed, stored):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_initial_kernels_have_the_official_spread():
  layer = convolution.NormalizedConv2D(256, 3)
  layer.build(tf.TensorShape([None, None, None, 64]))
  expected = np.sqrt(2 / (9 * 256))
  assert np.std(layer.kernel) == pytest.approx(expected, rel=0.02)
  layer = convolution.NormalizedConv2D(None, 5)
  layer.build(tf.TensorShape([None, None, None, 512]))
  assert np.std(layer.kernel) == pytest.approx(np.sqrt(2 / 25), rel=0.03)


def test_squeeze_excitation_follows_its_formula():
  layer = convolution.SqueezeExcitation(3)
  outputs = layer(_X)
  means = _X.numpy().mean((1, 2))
  reduce, reduce_bias, expand, expand_bias = (w.numpy() for w in layer.weights)
  hidden = means @ reduce[0, 0] + reduce_bias
  hidden = hidden / (1 + np.exp(-hidden))
  gates = 1 / (1 + np.exp(-(hidden @ expand[0, 0] + expand_bias)))
  expected = _X.numpy() * gates[:, None, None]
  np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


def test_drop_path_keeps_or_zeroes_whole_examples():
  outputs = convolution.drop_path(_X, tf.constant([0.1, 0.79, 0.8, 0.99]), 0.8)
  np.testing.assert_allclose(outputs[:2], _X[:2] / 0.8, rtol=1e-6)
  np.testing.assert_array_equal(outputs[2:], tf.zeros_like(_X[2:]))


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
