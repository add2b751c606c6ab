"""Stops training before weights that are not finite are saved."""

from collections.abc import Mapping, Sequence
import math

import numpy as np
import tensorflow as tf

from efficientnet_advprop.base import errors

_ADVICE = 'try a lower train.learning_rate or a longer train.warmup_epochs'


def first_bad(
  losses: tf.Tensor, index: tf.Tensor, found: tf.Tensor, seen: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
  """Remembers the first losses of a loop that are not finite.

  Nothing waits for the answer: a loop that stopped by itself would have to
  fetch every step's losses from the device before it began the next.

  Args:
    losses: of this step, float32 [losses].
    index: of this step, int32.
    found: the index of the first bad step before, or -1.
    seen: its losses.

  Returns:
    `found` and `seen`, with this step if it is the first.
  """
  is_bad = ~tf.reduce_all(tf.math.is_finite(losses))
  is_first = is_bad & (found < 0)
  return tf.where(is_first, index, found), tf.where(is_first, losses, seen)


def error(
  step: int, losses: Mapping[str, float], learning_rate: float, saved: int
) -> errors.TrainingError:
  """Returns the error to raise over losses that are not finite.

  Args:
    step: the first one that had them, counted from 1.
    losses: by their names.
    learning_rate: of that step.
    saved: the step of the last checkpoint, 0 if there is none.
  """
  values = ', '.join(f'{name} {value:.4g}' for name, value in losses.items())
  bad = [n for n, v in losses.items() if not math.isfinite(v) and n != 'loss']
  return errors.TrainingError(
    f'step {step}: {" and ".join(bad) or "the weight penalty"} not finite'
    f' ({values}, learning rate {learning_rate:.4g}); {_left(saved)};'
    f' {_ADVICE}'
  )


def check_weights(
  variables: Sequence[tf.Variable], step: int, saved: int
) -> None:
  """Raises TrainingError if an update has broken weights.

  The loss does not show it before the next step, and a checkpoint in between
  would make every restart fail.

  Args:
    variables: the weights after `step`.
    step: of the last update.
    saved: the step of the last checkpoint, 0 if there is none.
  """
  # On the host: the checkpoint that follows fetches them all the same.
  broken = [v.name for v in variables if not np.isfinite(v.numpy()).all()]
  if broken:
    others = f' and {len(broken) - 1} more' if len(broken) > 1 else ''
    raise errors.TrainingError(
      f'step {step}: its update has left weights that are not finite'
      f' ({broken[0]}{others}); {_left(saved)}; {_ADVICE}'
    )


def _left(saved: int) -> str:
  if saved:
    return f'the checkpoint of step {saved} is intact'
  return 'there is no checkpoint yet'
