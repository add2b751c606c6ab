"""Faster roads through the same mathematics, for a processor that runs XLA.

Every function here equals a composition of plain TensorFlow operations to
float32 summation error. What it saves is passes over memory, which bound the
speed of these networks on a CPU.
"""

from collections.abc import Sequence
import math
from typing import Any, Callable

import tensorflow as tf

from efficientnet_advprop.layers import compilation

# Rows that are added up one by one, in code without a loop, before a reduction.
# XLA reduces a matrix to its columns' sums slowly, but adds up fast.
_MOST_ROWS = 16


def _with_shape(shape: Any, *values: tf.Tensor) -> Any:
  """Gives values, or a single one, their static shape."""
  for value in values:
    value.set_shape(shape)
  return values if len(values) > 1 else values[0]


def _parts(count: int) -> int:
  """Returns into how many parts `_rows` and `_image_rows` divide a count."""
  return next(n for n in range(_MOST_ROWS, 0, -1) if count % n == 0)


def normalized_swish(
  inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
  """Batch normalization in training mode, and swish behind it.

  Backward it starts from `inputs` again, so that the normalized values are
  never stored: two reads and a write of a layer forward, four and one backward.

  Args:
    inputs: [batch, height, width, channels], of a static shape.
    gamma: float32 [channels].
    beta: float32 [channels].
    epsilon: added to the variance.

  Returns:
    Outputs like `inputs`; the batch's mean and biased variance, float32
    [channels], which carry no gradient.
  """
  rows, channels = math.prod(inputs.shape[:-1]), inputs.shape[-1]
  parts = _parts(rows)
  gamma, beta = map(tf.convert_to_tensor, (gamma, beta))  # From variables.
  # Outside of `run`, whose outputs TensorFlow would give gradients of zeros.
  mean, variance = _with_shape(
    [channels], *_moments(tf.stop_gradient(inputs), parts=parts)
  )

  @tf.custom_gradient
  def run(inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> Any:
    norm = mean, variance, gamma, beta

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
      towards_beta, towards_gamma = _with_shape(
        [channels],
        *_swish_sums(inputs, upstream, *norm, parts=parts, epsilon=epsilon),
      )
      towards_inputs = _swish_gradient(
        inputs, upstream, *norm, towards_beta, towards_gamma, epsilon=epsilon
      )
      towards_inputs = _with_shape(inputs.shape, towards_inputs)
      return towards_inputs, towards_gamma, towards_beta

    outputs = _normalize_swish(inputs, *norm, epsilon=epsilon)
    return _with_shape(inputs.shape, outputs), gradient

  return run(inputs, gamma, beta), mean, variance


@tf.custom_gradient
def swish(inputs: tf.Tensor) -> Any:
  """Multiplies by the sigmoid, in a pass over memory each way.

  Args:
    inputs: of a static shape.

  Returns:
    Like `inputs`.
  """
  # As one row, all shapes of a size share what is compiled for them.
  size = inputs.shape.num_elements()
  row = tf.reshape(inputs, [size])

  def gradient(upstream: tf.Tensor) -> tf.Tensor:
    towards = _row_swish_gradient(row, tf.reshape(upstream, [size]))
    return tf.reshape(towards, inputs.shape)

  return tf.reshape(_row_swish(row), inputs.shape), gradient


def gated(
  inputs: tf.Tensor,
  gates_of: Callable[..., tf.Tensor],
  weights: Sequence[tf.Tensor],
) -> tf.Tensor:
  """Inputs * gates_of(means of the inputs over height and width, *weights).

  Backward it takes three reads and a write.

  Args:
    inputs: [batch, height, width, channels], of a static shape.
    gates_of: maps [batch, channels] and the weights to [batch, channels]. It
      holds no variables.
    weights: tensors on which the gates depend.

  Returns:
    Like `inputs`.
  """
  batch, height, width, channels = inputs.shape
  pixels = height * width

  @tf.custom_gradient
  def run(inputs: tf.Tensor, *weights: tf.Tensor) -> Any:
    means = tf.reduce_mean(inputs, [1, 2])
    with tf.GradientTape() as tape:
      tape.watch((means, *weights))
      gates = gates_of(means, *weights)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
      towards_means, *others = tape.gradient(
        gates,
        (means, *weights),
        _with_shape(
          gates.shape, _gate_sums(inputs, upstream, parts=_parts(pixels))
        ),
      )
      towards_inputs = _gate_gradient(upstream, gates, towards_means)
      return _with_shape(inputs.shape, towards_inputs), *others

    shaped = tf.reshape(gates, [batch, 1, 1, channels])
    return inputs * shaped, gradient

  return run(inputs, *weights)


def _rows(x: tf.Tensor, parts: int) -> list[tf.Tensor]:
  """Float32 [rows / parts, channels] parts, whose sum has the same sum."""
  x = tf.reshape(x, [parts, -1, tf.shape(x)[-1]])
  return tf.unstack(tf.cast(x, tf.float32))


def _image_rows(x: tf.Tensor, parts: int) -> list[tf.Tensor]:
  """The same of each image, float32 [batch, pixels / parts, channels]."""
  shape = tf.shape(x)
  x = tf.reshape(x, [shape[0], parts, -1, shape[-1]])
  return tf.unstack(tf.cast(x, tf.float32), axis=1)


def _sum_pairs(
  first: list[tf.Tensor], second: list[tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
  """Both sums over all rows, [channels] each, in one pass over memory.

  Complex numbers make one output of the two; XLA would run a loop for each.
  """
  pairs = tf.reduce_sum(tf.complex(tf.add_n(first), tf.add_n(second)), 0)
  return tf.math.real(pairs), tf.math.imag(pairs)


@compilation.compiled
def _moments(x: tf.Tensor, parts: int) -> tuple[tf.Tensor, tf.Tensor]:
  """Mean and biased variance of each channel."""
  channels = tf.shape(x)[-1]
  count = tf.cast(tf.size(x) // channels, tf.float32)
  # Relative to a value near the mean, squares do not cancel.
  start = tf.cast(tf.reshape(x, [-1, channels])[:8], tf.float32)
  start = tf.reduce_mean(start, 0)
  rows = [row - start for row in _rows(x, parts)]
  sums, squares = _sum_pairs(rows, [row * row for row in rows])
  mean = sums / count
  return start + mean, tf.maximum(squares / count - mean * mean, 0.0)


@compilation.compiled
def _normalize_swish(
  x: tf.Tensor,
  mean: tf.Tensor,
  variance: tf.Tensor,
  gamma: tf.Tensor,
  beta: tf.Tensor,
  epsilon: float,
) -> tf.Tensor:
  """Swish of the normalized inputs."""
  scale = gamma * tf.math.rsqrt(variance + epsilon)
  z = (tf.cast(x, tf.float32) - mean) * scale + beta
  return tf.cast(_swish(0.5 * z), x.dtype)


def _swish(half: tf.Tensor) -> tf.Tensor:
  """The swish of 2 * half.

  The sigmoid of z is (1 + tanh(z / 2)) / 2. XLA computes a hyperbolic tangent
  by fewer operations than an exponential, and these functions are bound by
  arithmetic.
  """
  return half + half * tf.tanh(half)


def _twice_towards(half: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
  """Twice the gradient towards z = 2 * half, whose swish has `upstream`."""
  one = tf.ones([])
  gate = tf.tanh(half)
  return upstream * ((one + gate) * (one + half * (one - gate)))


@compilation.compiled
def _row_swish(x: tf.Tensor) -> tf.Tensor:
  return tf.cast(_swish(0.5 * tf.cast(x, tf.float32)), x.dtype)


@compilation.compiled
def _row_swish_gradient(x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
  half, upstream = (0.5 * tf.cast(v, tf.float32) for v in (x, upstream))
  return tf.cast(_twice_towards(half, upstream), x.dtype)


@compilation.compiled
def _swish_sums(
  x: tf.Tensor,
  upstream: tf.Tensor,
  mean: tf.Tensor,
  variance: tf.Tensor,
  gamma: tf.Tensor,
  beta: tf.Tensor,
  parts: int,
  epsilon: float,
) -> tuple[tf.Tensor, tf.Tensor]:
  """Gradients towards beta and gamma.

  With d as the gradient towards the normalized inputs, before the swish, they
  are the sums of d, and of d * (x - mean) / deviation.
  """
  rows = [row - mean for row in _rows(x, parts)]
  inverse = tf.math.rsqrt(variance + epsilon)
  scale, offset = 0.5 * gamma * inverse, 0.5 * beta
  first = [
    _twice_towards(row * scale + offset, gradient)
    for row, gradient in zip(rows, _rows(upstream, parts))
  ]
  sums, products = _sum_pairs(first, [d * row for d, row in zip(first, rows)])
  return 0.5 * sums, 0.5 * inverse * products


@compilation.compiled
def _swish_gradient(
  x: tf.Tensor,
  upstream: tf.Tensor,
  mean: tf.Tensor,
  variance: tf.Tensor,
  gamma: tf.Tensor,
  beta: tf.Tensor,
  towards_beta: tf.Tensor,
  towards_gamma: tf.Tensor,
  epsilon: float,
) -> tf.Tensor:
  """Scale * d of `_swish_sums`, less what moves with the batch's moments."""
  centred = tf.cast(x, tf.float32) - mean
  inverse = tf.math.rsqrt(variance + epsilon)
  scale = gamma * inverse
  count = tf.cast(tf.size(x) // tf.shape(x)[-1], tf.float32)
  slope = scale * inverse * towards_gamma / count
  constant = scale * towards_beta / count
  half_scale = 0.5 * scale
  twice = _twice_towards(
    centred * half_scale + 0.5 * beta, tf.cast(upstream, tf.float32)
  )
  return tf.cast(twice * half_scale - centred * slope - constant, x.dtype)


@compilation.compiled
def _gate_sums(x: tf.Tensor, upstream: tf.Tensor, parts: int) -> tf.Tensor:
  """Sums of x * upstream over each image, [batch, channels]."""
  pairs = zip(_image_rows(x, parts), _image_rows(upstream, parts))
  sums = tf.reduce_sum(tf.add_n([a * b for a, b in pairs]), 1)
  return tf.cast(sums, x.dtype)


@compilation.compiled
def _gate_gradient(
  upstream: tf.Tensor, gates: tf.Tensor, towards_means: tf.Tensor
) -> tf.Tensor:
  """Upstream * gates, and each mean's gradient shared out among its pixels."""
  places = (slice(None), tf.newaxis, tf.newaxis)
  shape = tf.shape(upstream)
  constant = towards_means / tf.cast(shape[1] * shape[2], upstream.dtype)
  return upstream * gates[places] + constant[places]
