"""Depthwise convolutions whose gradients avoid oneDNN's slow general code.

They equal TensorFlow's to float32 summation error.
"""

from typing import Any

import tensorflow as tf

# Inputs taller than this are not copied for the sake of a faster kernel.
_MOST_COPIED_ROWS = 32


def convolution(
  inputs: tf.Tensor, kernel: tf.Tensor, strides: int
) -> tf.Tensor:
  """`tf.nn.depthwise_conv2d`, whose kernel gets its gradient sooner.

  Args:
    inputs: [batch, height, width, channels].
    kernel: [size, size, channels, 1].
    strides: in both directions.

  Returns:
    [batch, height / strides, width / strides, channels]; padding is SAME.
  """
  settings = dict(strides=[1, strides, strides, 1], padding='SAME')
  find = _gradient
  height = inputs.shape[1]
  if height and kernel.shape[1] == 5 and strides == 1:
    find = _gradient_in_halves
  elif height and kernel.shape[1] == 5 and height <= _MOST_COPIED_ROWS:
    find = _strided_gradient_in_halves
  elif height and kernel.shape[1] == 3 and strides == 1 and height < 3:
    find = _gradient_of_low_maps

  @tf.custom_gradient
  def run(inputs: tf.Tensor, kernel: tf.Tensor) -> Any:

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
      towards_inputs = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
        input_sizes=tf.shape(inputs),
        filter=kernel,
        out_backprop=upstream,
        **settings,
      )
      return towards_inputs, find(inputs, upstream, kernel.shape, settings)

    return tf.nn.depthwise_conv2d(inputs, kernel, **settings), gradient

  return run(inputs, kernel)


def _gradient(
  inputs: tf.Tensor, upstream: tf.Tensor, shape: Any, settings: Any
) -> tf.Tensor:
  return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
    input=inputs, filter_sizes=shape, out_backprop=upstream, **settings
  )


def _gradient_in_halves(
  inputs: tf.Tensor, upstream: tf.Tensor, shape: Any, settings: Any
) -> tf.Tensor:
  """Columns 0-2 and 2-4 of a 5x5 kernel's gradient, joined.

  oneDNN's code for depthwise kernels ends at 3 columns, and at maps less tall
  than the kernel; its general code is 2 to 4 times slower.
  """
  missing = max(0, shape[0] - inputs.shape[1])
  half = [shape[0], 3, *shape[2:]]

  def padded(x: tf.Tensor, left: int) -> tf.Tensor:
    return tf.pad(x, [[0, 0], [0, missing], [left, 1 - left], [0, 0]])

  left, right = (
    _gradient(
      padded(inputs, shift), padded(upstream, 1 - shift), half, settings
    )
    for shift in (1, 0)
  )
  return tf.concat([left, right[:, 1:]], 1)


def _strided_gradient_in_halves(
  inputs: tf.Tensor, upstream: tf.Tensor, shape: Any, settings: Any
) -> tf.Tensor:
  """The same for strides of 2, from two copies of the inputs."""
  strides, size = settings['strides'][1], shape[0]
  margins, ends = [[0, 0]], []
  for axis in (1, 2):
    ends.append((upstream.shape[axis] - 1) * strides)
    total = max(0, ends[-1] + size - inputs.shape[axis])
    margins.append([total // 2, total - total // 2])
  inputs = tf.pad(inputs, [*margins, [0, 0]])
  valid = {**settings, 'padding': 'VALID'}
  left, right = (
    _gradient(
      inputs[:, :, start : start + ends[1] + 3],
      upstream,
      [size, 3, *shape[2:]],
      valid,
    )
    for start in (0, 2)
  )
  return tf.concat([left, right[:, 1:]], 1)


def _gradient_of_low_maps(
  inputs: tf.Tensor, upstream: tf.Tensor, shape: Any, settings: Any
) -> tf.Tensor:
  """The gradient from maps with zeros below, as tall as the kernel.

  oneDNN's general code for lower ones is 5 to 8 times slower.
  """
  margins = [[0, 0], [0, shape[0] - inputs.shape[1]], [0, 0], [0, 0]]
  return _gradient(
    tf.pad(inputs, margins), tf.pad(upstream, margins), shape, settings
  )
