"""mixed_float16: dynamic loss scaling, and steps that are skipped for it.

Numbers below 6e-8 are 0 in float16, and many gradients are smaller. The loss is
therefore multiplied by a scale before gradients are taken, those of weights and
those of pixels, and the gradients of weights are divided by it afterwards, in
float32. Keras's LossScaleOptimizer keeps the scale: 2 ** 15 at first, twice as
large after 2,000 steps without an overflow, half as large after each overflow.

A step that overflows leaves nothing but the new scale and the count of steps:
weights, optimizer, moving average and the statistics of norms stay as they
were. Keras itself keeps the statistics of such a step. They are put back here,
because the overflow may have happened in the forward pass, and a statistic that
is not finite would stay so for ever.
"""

from collections.abc import Iterator, Sequence
import contextlib
import functools
from typing import Callable, Optional

import tensorflow as tf

from efficientnet_advprop import config as config_lib

# Part of the names in a checkpoint that Keras gives to the scale.
_SCALE = 'optimizer/loss_scale/'


def scaling(
  optimizer: tf.keras.optimizers.Optimizer, strategy: tf.distribute.Strategy
) -> tf.keras.mixed_precision.LossScaleOptimizer:
  """Wraps an optimizer, so that it keeps the scale of the loss.

  The checkpoint of the result is that of the optimizer and the scale.

  Raises:
    ConfigError: the strategy runs on TPUs, which have no float16.
  """
  if isinstance(strategy, tf.distribute.TPUStrategy):
    allowed = 'mixed_bfloat16 or float32 on a TPU'
    raise config_lib.ConfigError('train.precision', 'mixed_float16', allowed)
  return tf.keras.mixed_precision.LossScaleOptimizer(optimizer)


def is_scaling(optimizer: tf.keras.optimizers.Optimizer) -> bool:
  """Whether an optimizer keeps a scale of the loss."""
  return isinstance(optimizer, tf.keras.mixed_precision.LossScaleOptimizer)


def loss_scale(
  optimizer: tf.keras.optimizers.Optimizer,
) -> Optional[tf.Tensor]:
  """Returns the present scale of the loss, float32; None if it has none."""
  if not is_scaling(optimizer):
    return None
  return optimizer.get_scaled_loss(tf.constant(1.0))


def apply_gradients(
  optimizer: tf.keras.mixed_precision.LossScaleOptimizer,
  gradients: Sequence[Optional[tf.Tensor]],
  variables: Sequence[tf.Variable],
) -> tf.Tensor:
  """Makes an update, or skips it, and sets the next scale.

  Runs in a replica's context. All replicas decide alike, for they look at the
  sum of their gradients.

  Args:
    optimizer: it counts skipped steps, too.
    gradients: of the loss times the scale, summed over the replicas.
    variables: those of the gradients.

  Returns:
    Whether the gradients were finite and the update was made, a bool scalar.
  """
  unscaled = optimizer.get_unscaled_gradients(gradients)
  # Looked at here, for Keras does not say what it found.
  finite = [
    tf.reduce_all(tf.math.is_finite(gradient))
    for gradient in unscaled
    if gradient is not None
  ]
  optimizer.apply_gradients(
    zip(unscaled, variables), skip_gradients_aggregation=True
  )
  return tf.reduce_all(tf.stack(finite))


def copies(variables: Sequence[tf.Variable]) -> list[tf.Tensor]:
  """Reads what `put_back` takes."""
  return [tf.identity(variable) for variable in variables]


def put_back(
  variables: Sequence[tf.Variable], old: Sequence[tf.Tensor], keep: tf.Tensor
) -> None:
  """Gives variables their old values again, unless `keep` holds.

  Runs in a replica's context, on variables that each replica has for itself.
  """
  for variable, value in zip(variables, old):
    variable.assign(tf.where(keep, variable, value))


def reader(
  checkpoint: tf.train.Checkpoint,
) -> Callable[[str], tf.train.Checkpoint]:
  """Returns what restores files that were written with another precision.

  Without a scale in the file the scale starts again; a scale that the run does
  not use any longer is dropped.

  Args:
    checkpoint: of the run, with `model`, `ema` and `optimizer`.

  Returns:
    A function from the path of a file to `checkpoint` or what takes its place.
  """
  own = is_scaling(checkpoint.optimizer)

  @functools.cache
  def other() -> tf.train.Checkpoint:
    # The optimizer's parts, as Keras gives them the scale as another one.
    parts = dict(checkpoint.optimizer._trackable_children())
    if own:
      del parts['loss_scale']
    else:
      parts['loss_scale'] = tf.train.Checkpoint(
        current_loss_scale=tf.Variable(0.0),
        good_steps=tf.Variable(0, dtype=tf.int64),
      )
    return tf.train.Checkpoint(
      model=checkpoint.model,
      ema=checkpoint.ema,
      optimizer=tf.train.Checkpoint(**parts),
    )

  def chosen(path: str) -> tf.train.Checkpoint:
    names = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    is_saved = any(name.startswith(_SCALE) for name in names)
    return checkpoint if is_saved == own else other()

  return chosen


@contextlib.contextmanager
def policy(name: str) -> Iterator[None]:
  """Sets the type in which the networks compute that are created here."""
  outer = tf.keras.mixed_precision.global_policy()
  tf.keras.mixed_precision.set_global_policy(name)
  try:
    yield
  finally:
    tf.keras.mixed_precision.set_global_policy(outer)
