"""Compares two functions of tensors, and their gradients."""

from typing import Callable

import numpy as np
import tensorflow as tf

_RNG = np.random.default_rng(0)
_Function = Callable[..., tf.Tensor]


def random(*shape: int) -> tf.Tensor:
  """Normal numbers, float32."""
  return tf.constant(_RNG.normal(size=shape), tf.float32)


def _gradients(function: _Function, *arguments: tf.Tensor) -> list[tf.Tensor]:
  with tf.GradientTape() as tape:
    tape.watch(arguments)
    outputs = function(*arguments)
    weights = np.random.default_rng(1).normal(size=outputs.shape)
    total = tf.reduce_sum(tf.cast(outputs, tf.float32) * weights)
  return [outputs, *tape.gradient(total, arguments)]


def assert_equal(
  one: _Function, two: _Function, *arguments: tf.Tensor, tolerance: float = 3e-6
) -> None:
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
