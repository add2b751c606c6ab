"""The official EfficientNet recipe: schedule, RMSProp, weight decay, average.

Source: models/official/efficientnet of the tensorflow/tpu repository, whose
TensorFlow 1 semantics the tests hold against closed forms.
"""

from typing import Any

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.layers import normalization


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
  ):
    """Creates the schedule.

    Args:
      peak: the rate before any decay.
      warmup_steps: during which the rate rises from 0 to `peak`.
      decay_steps: the length of a stair.
      decay_factor: between two stairs.
    """
    super().__init__()
    self.peak = peak
    self.warmup_steps = warmup_steps
    self.decay_steps = decay_steps
    self.decay_factor = decay_factor

  def __call__(self, step: tf.Tensor) -> tf.Tensor:
    step = tf.cast(step, tf.float32)
    stairs = tf.floor(step / self.decay_steps)
    decayed = self.peak * tf.pow(self.decay_factor, stairs)
    warming = self.peak * step / max(self.warmup_steps, 1)
    return tf.where(step < self.warmup_steps, warming, decayed)

  def get_config(self) -> dict[str, Any]:
    names = 'peak', 'warmup_steps', 'decay_steps', 'decay_factor'
    return {name: getattr(self, name) for name in names}


class TensorFlow1RMSprop(tf.keras.optimizers.RMSprop):
  """RMSProp whose mean squares start at 1 as in TensorFlow 1, not at 0.

  Epsilon stands inside the square root, as it does in both. Each variable is
  updated by TensorFlow 1's own kernel, in one operation instead of twenty.
  """

  def build(self, var_list: list[tf.Variable]) -> None:
    is_new = not hasattr(self, '_velocities')
    super().build(var_list)
    if not is_new:
      return  # Keras calls again with the first gradients, after a restore.
    for mean_square in self._velocities:
      mean_square.assign(tf.ones_like(mean_square))

  def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
    index = self._index_dict[self._var_key(variable)]
    tf.raw_ops.ResourceApplyRMSProp(
      var=variable.handle,
      ms=self._velocities[index].handle,
      mom=self._momentums[index].handle,
      lr=tf.cast(self.learning_rate, variable.dtype),
      rho=self.rho,
      momentum=self.momentum,
      epsilon=self.epsilon,
      grad=gradient,
    )


def learning_rate(config: config_lib.Config) -> WarmupStaircase:
  """The schedule of a run, scaled linearly with its batch size."""
  train = config.train
  return WarmupStaircase(
    peak=train.learning_rate * train.batch_size / 256,
    warmup_steps=int(train.warmup_epochs * config.steps_per_epoch),
    decay_steps=train.decay_epochs * config.steps_per_epoch,
    decay_factor=train.decay_factor,
  )


def create_optimizer(
  config: config_lib.Config, model: tf.keras.Model
) -> tf.keras.optimizers.Optimizer:
  """Creates the optimizer and its variables for those of `model`."""
  schedule = learning_rate(config)
  if config.train.optimizer == 'sgd':
    optimizer = tf.keras.optimizers.SGD(schedule, momentum=0.9)
  else:
    optimizer = TensorFlow1RMSprop(
      schedule, rho=0.9, momentum=0.9, epsilon=1e-3
    )
  # Before any restoring, so that the ones never overwrite a checkpoint.
  optimizer.build(model.trainable_variables)
  return optimizer


def decayed_variables(model: tf.keras.Model) -> list[tf.Variable]:
  """The trainable variables that do not belong to a norm."""
  norms: set[int] = set()
  for layer in model.submodules:
    if isinstance(layer, normalization.AuxBatchNormalization):
      norms.update(id(variable) for variable in layer.trainable_variables)
  return [v for v in model.trainable_variables if id(v) not in norms]


def average_decay(step: tf.Tensor, limit: float) -> tf.Tensor:
  """min(limit, (1 + step) / (10 + step)), which follows quickly at first."""
  step = tf.cast(step, tf.float32)
  return tf.minimum(limit, (1 + step) / (10 + step))


def update_average(
  average: tf.keras.Model, model: tf.keras.Model, decay: tf.Tensor
) -> None:
  """Moves the variables of `average` towards those of `model`.

  Runs in a replica's context. All variables take part, the moving statistics
  of every domain too.
  """
  rate = 1 - decay

  def move(shadow: tf.Variable, value: tf.Tensor) -> None:
    shadow.assign_sub((shadow - value) * tf.cast(rate, shadow.dtype))

  def move_mirrored(strategy: tf.distribute.Strategy, pairs: Any) -> None:
    for shadow, variable in pairs:
      strategy.extended.update(shadow, move, args=(variable,))

  trainable = zip(average.trainable_variables, model.trainable_variables)
  context = tf.distribute.get_replica_context()
  context.merge_call(move_mirrored, args=(list(trainable),))
  # Statistics are a replica's own until they are read across replicas.
  for shadow, variable in zip(
    average.non_trainable_variables, model.non_trainable_variables
  ):
    move(shadow, variable)
