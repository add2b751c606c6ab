"""Variables that move towards a value, as averages do."""

from typing import Union

import tensorflow as tf


def move(
  variable: tf.Variable, target: tf.Tensor, rate: Union[float, tf.Tensor]
) -> None:
  """Subtracts (variable - target) * rate from a variable.

  On a single replica it takes the operations themselves. They are traced
  several times sooner than the methods of variables, which look up devices and
  distributions; the bits are the same.

  Args:
    variable: what moves.
    target: of its shape and type.
    rate: in [0, 1].
  """
  dtype = variable.dtype.base_dtype
  context = tf.distribute.get_replica_context()
  if context is None or context.num_replicas_in_sync > 1:
    variable.assign_sub((variable - target) * tf.cast(rate, dtype))
    return
  old = read(variable)
  delta = tf.raw_ops.Mul(
    x=tf.raw_ops.Sub(x=old, y=target), y=tf.cast(rate, dtype)
  )
  tf.raw_ops.AssignSubVariableOp(resource=variable.handle, value=delta)


def read(variable: tf.Variable) -> tf.Tensor:
  """Reads a variable that is not mirrored, by the operation itself."""
  return tf.raw_ops.ReadVariableOp(
    resource=variable.handle, dtype=variable.dtype.base_dtype
  )
