"""Layers that the networks share: normalized convolutions, gates."""

from collections.abc import Sequence
import itertools
from typing import Any, Optional

import tensorflow as tf

from efficientnet_advprop import config
from efficientnet_advprop.layers import kernels
from efficientnet_advprop.layers import normalization

# Of ImageNet, red, green and blue, in units of [0, 1].
_MEAN = (0.485, 0.456, 0.406)
_STDDEV = (0.229, 0.224, 0.225)


def normalized_pixels(images: tf.Tensor, normalization: str) -> tf.Tensor:
  """Maps images in [-1, 1] to what `ModelConfig.normalization` names."""
  if normalization == 'advprop':
    return images
  scale = [0.5 / deviation for deviation in _STDDEV]
  offset = [(0.5 - mean) / dev for mean, dev in zip(_MEAN, _STDDEV)]
  return images * scale + offset


def build(layer: tf.keras.layers.Layer, channels: int) -> None:
  """Creates the variables of a layer for inputs of so many channels.

  Without the trace of a call that Keras would make for it.
  """
  with tf.name_scope(layer.name):
    layer.build(tf.TensorShape([None, None, None, channels]))


def stored(
  layer: tf.keras.layers.Layer, inputs: tf.Tensor, **arguments: Any
) -> tf.Tensor:
  """Calls a layer; what its gradient needs is stored until then."""
  return layer(inputs, **arguments)


def recomputed(
  layer: tf.keras.layers.Layer, inputs: tf.Tensor, **arguments: Any
) -> tf.Tensor:
  """Calls a layer; its gradient starts from the inputs, computing all again.

  The moments of a batch leave the layer beside its outputs, so that moving
  statistics move once and not again backward. Randomness must come with the
  arguments.
  """
  moves: list[normalization.Move] = []

  def run(x: tf.Tensor) -> list[tf.Tensor]:
    with normalization.held_moves() as held:
      outputs = layer(x, **arguments)
    moves[:] = held
    moments = [(move.mean, move.variance) for move in held]
    return [outputs, *itertools.chain(*moments)]

  outputs, *moments = tf.recompute_grad(run)(inputs)
  for move, mean, variance in zip(moves, moments[::2], moments[1::2]):
    move.norm.move_statistics(move.domain, mean, variance)
  return outputs


def pad_symmetrically(inputs: tf.Tensor, window_size: int) -> tf.Tensor:
  """Pads images by (window_size - 1) // 2 zeros on all four sides.

  A strided convolution or pooling without padding of its own follows. Source:
  `fixed_padding` in models/official/resnet of the tensorflow/tpu repository;
  torchvision, timm and `keras.applications` pad ResNets in the same way.

  Args:
    inputs: [batch, height, width, channels].
    window_size: height and width of the kernel or pooling window, in pixels.
      It is odd.

  Returns:
    [batch, height + window_size - 1, width + window_size - 1, channels].
  """
  margin = (window_size - 1) // 2
  if not margin:
    return inputs
  return tf.pad(inputs, [[0, 0], [margin, margin], [margin, margin], [0, 0]])


class NormalizedConv2D(tf.keras.layers.Layer):
  """A convolution without bias, the batch norm behind it, perhaps a swish.

  Inference runs one convolution whose kernel and bias hold the norm of the
  domain: the same mathematics with a pass over memory less, for the attack,
  evaluation and export alike. Where code may be compiled, a swish takes the
  norm of training into its own passes.

  `call(inputs, training=None, domain='main')`. The output has
  ceil(size / strides) rows and columns.
  """

  def __init__(
    self,
    filters: Optional[int],
    kernel_size: int,
    strides: int = 1,
    *,
    swish: bool = False,
    symmetric: bool = False,
    auxiliary_domains: Sequence[str] = (),
    momentum: float = 0.99,
    epsilon: float = 1e-3,
    synchronized: bool = False,
    compiled: bool = False,
    **kwargs: Any,
  ):
    """Creates the layer.

    Args:
      filters: number of output channels; None for a depthwise convolution.
      kernel_size: height and width of the kernel, in pixels.
      strides: in both directions.
      swish: whether x * sigmoid(x) follows the norm.
      symmetric: whether a strided convolution pads both sides by
        (kernel_size - 1) // 2 pixels, as `pad_symmetrically` does. Otherwise
        padding is SAME, which pads an even size by one pixel more at the
        bottom and right than at the top and left.
      auxiliary_domains: of the norm.
      momentum: of the norm.
      epsilon: of the norm.
      synchronized: whether batch statistics span all replicas.
      compiled: whether `kernels` may be used.
      **kwargs: passed on to tf.keras.layers.Layer.
    """
    super().__init__(**kwargs)
    self.filters = filters
    self.kernel_size = kernel_size
    self.strides = strides
    self.swish = swish
    self.symmetric = symmetric
    self.compiled = compiled
    self.norm = normalization.AuxBatchNormalization(
      auxiliary_domains,
      momentum=momentum,
      epsilon=epsilon,
      synchronized=synchronized,
      name='norm',
    )

  def build(self, input_shape: tf.TensorShape) -> None:
    channels = int(input_shape[-1])
    size = self.kernel_size
    last = [channels, self.filters] if self.filters else [channels, 1]
    # The official code's fan-out: kernel area times the kernel's last axis,
    # which for a depthwise convolution is the multiplier, 1.
    stddev = (2 / (size * size * last[-1])) ** 0.5
    self.kernel = self.add_weight(
      name='kernel',
      shape=[size, size, *last],
      initializer=tf.keras.initializers.RandomNormal(stddev=stddev),
      # The norm is folded into the kernel in float32 before any cast.
      experimental_autocast=False,
    )
    self.out_channels = self.filters or channels
    build(self.norm, self.out_channels)
    super().build(input_shape)

  def call(
    self,
    inputs: tf.Tensor,
    training: Optional[bool] = None,
    domain: str = config.MAIN_DOMAIN,
  ) -> tf.Tensor:
    compiled = self.compiled and inputs.shape.is_fully_defined()
    if not training:
      outputs = self._folded(inputs, domain)
      return self._activate(outputs, compiled)
    outputs = self._convolve(inputs, self.kernel, compiled)
    if self.swish and compiled:
      return self._normalized_swish(outputs, domain)
    outputs = self.norm(outputs, training=True, domain=domain)
    return self._activate(outputs)

  def _folded(self, inputs: tf.Tensor, domain: str) -> tf.Tensor:
    """The convolution with the norm of the domain in kernel and bias."""
    scale, offset = self.norm.scale_and_offset(domain)
    if self.filters is None:
      scale = scale[:, tf.newaxis]
    outputs = self._convolve(inputs, self.kernel * scale)
    return tf.nn.bias_add(outputs, tf.cast(offset, outputs.dtype))

  def _activate(self, inputs: tf.Tensor, compiled: bool = False) -> tf.Tensor:
    if not self.swish:
      return inputs
    return kernels.swish(inputs) if compiled else tf.nn.silu(inputs)

  def _normalized_swish(self, inputs: tf.Tensor, domain: str) -> tf.Tensor:
    """Norm in training mode and swish, in the same compiled passes."""
    norm = self.norm.norm_of(domain)
    outputs, mean, variance = kernels.normalized_swish(
      inputs, norm.gamma, norm.beta, norm.epsilon
    )
    self.norm.move_statistics(domain, mean, variance)
    return outputs

  def _convolve(
    self, inputs: tf.Tensor, kernel: tf.Tensor, compiled: bool = False
  ) -> tf.Tensor:
    kernel = tf.cast(kernel, inputs.dtype)
    if self.filters is not None:
      padding = 'SAME'
      if self.symmetric and self.strides > 1:
        inputs, padding = pad_symmetrically(inputs, self.kernel_size), 'VALID'
      return tf.nn.conv2d(inputs, kernel, self.strides, padding)
    if compiled:
      return kernels.depthwise_convolution(inputs, kernel, self.strides)
    strides = [1, self.strides, self.strides, 1]
    return tf.nn.depthwise_conv2d(inputs, kernel, strides, 'SAME')


class SqueezeExcitation(tf.keras.layers.Layer):
  """Scales each channel by a gate computed from the means of all channels."""

  def __init__(
    self, reduced_channels: int, compiled: bool = False, **kwargs: Any
  ):
    """Creates the layer.

    Args:
      reduced_channels: between the two pointwise convolutions.
      compiled: whether `kernels` may be used.
      **kwargs: passed on to tf.keras.layers.Layer.
    """
    super().__init__(**kwargs)
    self.reduced_channels = reduced_channels
    self.compiled = compiled

  def build(self, input_shape: tf.TensorShape) -> None:
    channels = int(input_shape[-1])
    self.reduce = _pointwise(self.reduced_channels, 'reduce')
    self.expand = _pointwise(channels, 'expand')
    build(self.reduce, channels)
    build(self.expand, self.reduced_channels)
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
  """The gates [batch, channels]: two dense layers upon the means."""
  hidden = tf.nn.silu(tf.matmul(means, kernel[0, 0]) + bias)
  return tf.sigmoid(tf.matmul(hidden, second_kernel[0, 0]) + second_bias)


def _pointwise(filters: int, name: str) -> tf.keras.layers.Layer:
  stddev = (2 / filters) ** 0.5  # fan-out of a 1x1 convolution
  initializer = tf.keras.initializers.RandomNormal(stddev=stddev)
  return tf.keras.layers.Conv2D(
    filters, 1, kernel_initializer=initializer, name=name
  )


def drop_path(
  inputs: tf.Tensor, numbers: tf.Tensor, survival: float
) -> tf.Tensor:
  """Stochastic depth: zeroes whole examples, scales the others up.

  Args:
    inputs: the residual branch, [batch, height, width, channels].
    numbers: uniform in [0, 1), float32 [batch].
    survival: probability of an example to be kept.

  Returns:
    Like `inputs`, with the same expectation.
  """
  kept = tf.cast(numbers < survival, inputs.dtype) / survival
  return inputs * kept[:, tf.newaxis, tf.newaxis, tf.newaxis]
