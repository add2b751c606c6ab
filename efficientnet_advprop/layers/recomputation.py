"""Calls layers with or without storing what their gradients need."""

import itertools
from typing import Any

import tensorflow as tf

from efficientnet_advprop.layers import normalization


def stored(
  layer: tf.keras.layers.Layer, inputs: tf.Tensor, **arguments: Any
) -> tf.Tensor:
  """Calls a layer, which stores what its gradient needs."""
  return layer(inputs, **arguments)


def recomputed(
  layer: tf.keras.layers.Layer, inputs: tf.Tensor, **arguments: Any
) -> tf.Tensor:
  """Calls a layer, whose gradient computes everything again from the inputs.

  The moments of a batch leave the layer next to its outputs, so that moving
  statistics move once and not again in the backward pass. Randomness must come
  with the arguments.
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
