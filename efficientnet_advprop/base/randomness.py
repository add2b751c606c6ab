"""Random numbers as a pure function of each example's own seed.

An example carries a seed, int32 [2]; everything random that happens to it is
drawn from that seed and a salt that names the use. So a draw depends neither on
the batch an example sits in nor on the replica that holds it.
"""

from collections.abc import Sequence
from typing import Union

import tensorflow as tf

# Salts: one for each use of an example's seed, so that no two share numbers.
CROP = 1
FLIP = 2
AUGMENTATION = 3
ATTACK_START = 4
ATTACK_TARGET = 5
DROPOUT = 7
AUXILIARY_PASS = 8  # 8, 9, ...: one for each auxiliary domain.
MIXING = 500
MIXING_KIND = 501
MIXING_BOX = 502
RESTART = 1000  # 1000, 1001, ...: one for each restart of an attack.


def fold(seeds: tf.Tensor, salt: Union[int, tf.Tensor]) -> tf.Tensor:
  """Returns other seeds of the same shape, different for each salt.

  Args:
    seeds: int32.
    salt: a number, or a scalar int64 tensor.
  """
  # The generator hashes its seed, so that any difference in it is enough. The
  # odd multiplier (2^32 over the golden ratio) spreads salts over all bits.
  bits = tf.cast(salt * 0x9E3779B9 % 2**31, tf.int32)
  return tf.bitwise.bitwise_xor(seeds, bits)


def per_example_seeds(seed: tf.Tensor, batch_size: tf.Tensor) -> tf.Tensor:
  """Returns seeds [batch, 2] as they are, or splits one seed [2] into them."""
  seed = tf.cast(tf.convert_to_tensor(seed), tf.int32)
  if seed.shape.rank == 2:
    return seed
  return tf.random.experimental.stateless_split(seed, batch_size)


def uniform(
  seeds: tf.Tensor, shape: Union[Sequence[int], tf.Tensor], salt: int
) -> tf.Tensor:
  """Uniform numbers in [0, 1), of a given shape for each example.

  Args:
    seeds: int32 [batch, 2].
    shape: of one example's numbers; a tensor where it is not known yet.
    salt: names the use; see this module's constants.

  Returns:
    float32 [batch, *shape].
  """

  def draw(seed: tf.Tensor) -> tf.Tensor:
    # Philox gives the same integers with and without XLA; TensorFlow's own
    # floats differ between the two.
    return tf.random.stateless_uniform(
      shape, seed, None, None, tf.int32, alg='philox'
    )

  known = tf.TensorShape(None) if tf.is_tensor(shape) else shape
  signature = tf.TensorSpec(known, tf.int32)
  bits = tf.map_fn(draw, fold(seeds, salt), fn_output_signature=signature)
  if not tf.is_tensor(shape):
    bits = tf.ensure_shape(bits, [seeds.shape[0], *shape])
  # The low 24 bits, as many as a float32 holds exactly.
  return tf.cast(tf.bitwise.bitwise_and(bits, 2**24 - 1), tf.float32) * 2**-24
