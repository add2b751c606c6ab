"""Squeeze-and-excitation (Hu et al., CVPR 2018)."""

from typing import Any

import tensorflow as tf

from efficientnet_advprop.layers import convolution
from efficientnet_advprop.layers import kernels


class SqueezeExcitation(tf.keras.layers.Layer):
  """Scales each channel by a gate computed from the means of all channels."""

  def __init__(
    self, reduced_channels: int, compiled: bool = False, **kwargs: Any
  ):
    """Creates the layer.

    Args:
      reduced_channels: number of channels between the two pointwise
        convolutions.
      compiled: whether XLA may compile `kernels`.
      **kwargs: passed on to tf.keras.layers.Layer.
    """
    super().__init__(**kwargs)
    self.reduced_channels = reduced_channels
    self.compiled = compiled

  def build(self, input_shape: tf.TensorShape) -> None:
    channels = int(input_shape[-1])
    self.reduce = _pointwise(self.reduced_channels, 'reduce')
    self.expand = _pointwise(channels, 'expand')
    convolution.build(self.reduce, channels)
    convolution.build(self.expand, self.reduced_channels)
    super().build(input_shape)

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    if self.compiled and inputs.shape.is_fully_defined():
      reduce, expand = self.reduce, self.expand
      weights = reduce.kernel, reduce.bias, expand.kernel, expand.bias
      cast = [tf.cast(weight, inputs.dtype) for weight in weights]
      return kernels.gated(inputs, _gates, cast)
    means = tf.reduce_mean(inputs, [1, 2], keepdims=True)
    gates = self.expand(tf.nn.silu(self.reduce(means)))
    return inputs * tf.sigmoid(gates)


def _gates(
  means: tf.Tensor,
  kernel: tf.Tensor,
  bias: tf.Tensor,
  second_kernel: tf.Tensor,
  second_bias: tf.Tensor,
) -> tf.Tensor:
  """Computes the gates [batch, channels]: two dense layers on the means."""
  # Reshaped, because slices and their gradients take twice as many operations.
  matrix, second = (
    tf.reshape(each, each.shape[2:]) for each in (kernel, second_kernel)
  )
  hidden = tf.nn.silu(tf.matmul(means, matrix) + bias)
  return tf.sigmoid(tf.matmul(hidden, second) + second_bias)


def _pointwise(filters: int, name: str) -> tf.keras.layers.Layer:
  stddev = (2 / filters) ** 0.5  # fan-out of a 1x1 convolution
  initializer = tf.keras.initializers.RandomNormal(stddev=stddev)
  return tf.keras.layers.Conv2D(
    filters, 1, kernel_initializer=initializer, name=name
  )
