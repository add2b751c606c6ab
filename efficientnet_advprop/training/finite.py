"""Stops training before weights that are not finite are saved."""

from collections.abc import Mapping, Sequence
import math
from typing import NamedTuple, Optional

import numpy as np
import tensorflow as tf

from efficientnet_advprop.base import errors

_ADVICE = 'try a lower train.learning_rate or a longer train.warmup_epochs'


class Sums(NamedTuple):
  """What the steps of an interval leave; the next ones of it add to it."""

  losses: tf.Tensor  # float32 [losses], summed over the counted steps
  found: tf.Tensor  # int32, index of the first bad step, or -1
  bad: tf.Tensor  # its losses, float32 [losses]
  counted: tf.Tensor  # float32, steps whose losses were summed
  skipped: tf.Tensor  # float32, steps that float16 did not make


def no_sums(num_losses: int) -> Sums:
  """Returns the sums of no steps."""
  zero, zeros = tf.constant(0.0), tf.zeros([num_losses])
  return Sums(zeros, tf.constant(-1), zeros, zero, zero)


def with_step(
  sums: Sums,
  losses: tf.Tensor,
  index: tf.Tensor,
  skipped: Optional[tf.Tensor] = None,
  scale: Optional[tf.Tensor] = None,
) -> Sums:
  """Adds a step to sums.

  A step is bad if its losses are not finite; in float16, if its gradients are
  not although the loss was not scaled up, so that no other scale helps.

  Nothing waits for the answer: a loop that stopped by itself would have to
  fetch every step's losses from the device before it began the next.

  Args:
    sums: of the steps before.
    losses: of this step, float32 [losses].
    index: of this step, int32.
    skipped: 1 if float16 did not make the step, else 0; None outside float16.
    scale: the scale of the loss in this step, likewise.

  Returns:
    The sums with this step.
  """
  is_finite = tf.reduce_all(tf.math.is_finite(losses))
  added, counted, is_bad = losses, tf.constant(1.0), ~is_finite
  if skipped is None or scale is None:
    skipped = tf.constant(0.0)
  else:
    is_bad = (skipped > 0) & (scale <= 1)
    added = tf.where(is_finite, losses, 0.0)
    counted = tf.cast(is_finite, tf.float32)
  is_first = is_bad & (sums.found < 0)
  return Sums(
    sums.losses + added,
    tf.where(is_first, index, sums.found),
    tf.where(is_first, losses, sums.bad),
    sums.counted + counted,
    sums.skipped + skipped,
  )


def means(sums: Sums) -> list[float]:
  """Returns the mean losses of the counted steps; NaN if there are none."""
  counted = float(sums.counted.numpy())
  if not counted:
    return [math.nan] * len(sums.losses)
  return (sums.losses.numpy() / counted).tolist()


def error(
  step: int,
  losses: Mapping[str, float],
  learning_rate: float,
  saved: int,
  is_scaled: bool = False,
) -> errors.TrainingError:
  """Returns the error to raise over losses that are not finite.

  Args:
    step: the first one that had them, counted from 1.
    losses: by their names.
    learning_rate: of that step.
    saved: the step of the last checkpoint, 0 if there is none.
    is_scaled: whether the run computes in float16; then it is the gradients
      that are not finite, however small the scale of the loss.
  """
  values = ', '.join(f'{name} {value:.4g}' for name, value in losses.items())
  bad = [n for n, v in losses.items() if not math.isfinite(v) and n != 'loss']
  what, advice = ' and '.join(bad) or 'the weight penalty', _ADVICE
  if is_scaled:
    what = 'gradients of the loss without a scale'
    advice = f'{_ADVICE}, or train.precision=mixed_bfloat16'
  return errors.TrainingError(
    f'step {step}: {what} not finite ({values}, learning rate'
    f' {learning_rate:.4g}); {_left(saved)}; {advice}'
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
