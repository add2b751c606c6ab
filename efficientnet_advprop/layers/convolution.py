"""A convolution, the batch norm behind it and an activation as one layer."""

from collections.abc import Callable, Sequence
from typing import Any, Optional

import tensorflow as tf

from efficientnet_advprop import config
from efficientnet_advprop.layers import depthwise
from efficientnet_advprop.layers import kernels
from efficientnet_advprop.layers import normalization

ACTIVATIONS: dict[Optional[str], Callable[[tf.Tensor], tf.Tensor]] = {
  None: lambda x: x,
  'relu': tf.nn.relu,
  'relu6': tf.nn.relu6,
  'swish': tf.nn.silu,
}


def build(layer: tf.keras.layers.Layer, channels: int) -> None:
  """Creates the variables of a layer, without the call that Keras would trace.

  Args:
    layer: takes inputs of [batch, height, width, channels].
    channels: number of input channels.
  """
  with tf.name_scope(layer.name):
    layer.build(tf.TensorShape([None, None, None, channels]))


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
  """A convolution without bias, the batch norm behind it and an activation.

  Inference runs one convolution whose kernel and bias hold the norm of the
  domain. The mathematics is the same with one pass over memory less, for the
  attack, evaluation and export alike. Where code may be compiled, swish and the
  norm of training share their passes over memory.

  `call(inputs, training=None, domain='main')`. The output has
  ceil(size / strides) rows and columns.
  """

  def __init__(
    self,
    filters: Optional[int],
    kernel_size: int,
    strides: int = 1,
    *,
    activation: Optional[str] = None,
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
      filters: number of output channels; None makes it depthwise.
      kernel_size: height and width of the kernel, in pixels.
      strides: in both directions.
      activation: what follows the norm: `'swish'`, x * sigmoid(x), `'relu'`,
        `'relu6'`, or None for nothing.
      symmetric: whether a strided convolution pads both sides by
        (kernel_size - 1) // 2 pixels, as `pad_symmetrically` does. Otherwise
        padding is SAME, which pads an even size by one pixel more at the
        bottom and right than at the top and left.
      auxiliary_domains: names of the norm's domains other than `'main'`.
      momentum: share of the old value when a moving statistic moves.
      epsilon: added to the variance.
      synchronized: whether batch statistics span all replicas.
      compiled: whether XLA may compile `kernels`.
      **kwargs: passed on to tf.keras.layers.Layer.
    """
    super().__init__(**kwargs)
    self.filters = filters
    self.kernel_size = kernel_size
    self.strides = strides
    if activation not in ACTIVATIONS:
      allowed = ', '.join(name for name in ACTIVATIONS if name)
      raise config.ConfigError('activation', activation, allowed)
    self.activation = activation
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
    in_groups = normalization.current_groups() > 1
    if self.activation == 'swish' and compiled and not in_groups:
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
    if self.activation == 'swish' and compiled:
      return kernels.swish(inputs)
    return ACTIVATIONS[self.activation](inputs)

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
      return depthwise.convolution(inputs, kernel, self.strides)
    strides = [1, self.strides, self.strides, 1]
    return tf.nn.depthwise_conv2d(inputs, kernel, strides, 'SAME')
