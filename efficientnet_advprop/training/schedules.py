"""Learning rates as functions of the step.

Source of the staircase: models/official/efficientnet of the tensorflow/tpu
repository. The cosine is Keras's (Loshchilov and Hutter, 2017).
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from efficientnet_advprop import config as config_lib


class WarmupStaircase(tf.keras.optimizers.schedules.LearningRateSchedule):
  """Linear warm-up, then a staircase of exponential decay.

  The stairs are counted from step 0, so that the first value after a warm-up of
  5 epochs is already decayed twice at 2.4 epochs a stair.
  """

  def __init__(
    self,
    peak: float,
    warmup_steps: int,
    decay_steps: float,
    decay_factor: float,
    decay_at: Sequence[float] = (),
  ):
    """Creates the schedule.

    Args:
      peak: the rate before any decay.
      warmup_steps: number of steps in which the rate rises from 0 to `peak`.
      decay_steps: length of a stair, in steps.
      decay_factor: factor between two stairs.
      decay_at: steps at which the stairs begin, instead of every `decay_steps`.
    """
    super().__init__()
    self.peak = peak
    self.warmup_steps = warmup_steps
    self.decay_steps = decay_steps
    self.decay_factor = decay_factor
    self.decay_at = tuple(decay_at)

  def __call__(self, step: tf.Tensor) -> tf.Tensor:
    step = tf.cast(step, tf.float32)
    stairs = tf.floor(step / self.decay_steps)
    if self.decay_at:
      begun = step >= tf.constant(self.decay_at, tf.float32)
      stairs = tf.reduce_sum(tf.cast(begun, tf.float32))
    decayed = self.peak * tf.pow(self.decay_factor, stairs)
    warming = self.peak * step / max(self.warmup_steps, 1)
    return tf.where(step < self.warmup_steps, warming, decayed)

  def get_config(self) -> dict[str, Any]:
    names = 'peak', 'warmup_steps', 'decay_steps', 'decay_factor', 'decay_at'
    return {name: getattr(self, name) for name in names}


def learning_rate(
  config: config_lib.Config,
) -> tf.keras.optimizers.schedules.LearningRateSchedule:
  """Returns the schedule of a run, scaled linearly with its batch size."""
  train, epoch = config.train, config.steps_per_epoch
  peak = train.learning_rate * train.batch_size / 256
  warmup_steps = int(train.warmup_epochs * epoch)
  if train.schedule == 'cosine':
    # Keras counts the decay from the end of the warm-up.
    return tf.keras.optimizers.schedules.CosineDecay(
      0.0 if warmup_steps else peak,
      max(1, config.train_steps - warmup_steps),
      warmup_target=peak if warmup_steps else None,
      warmup_steps=warmup_steps,
    )
  return WarmupStaircase(
    peak=peak,
    warmup_steps=warmup_steps,
    decay_steps=train.decay_epochs * epoch,
    decay_factor=train.decay_factor,
    decay_at=[epochs * epoch for epochs in train.decay_at],
  )
