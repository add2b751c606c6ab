"""The optimizers, and which variables are decayed.

Source of RMSProp: models/official/efficientnet of the tensorflow/tpu
repository, whose TensorFlow 1 semantics the tests hold against closed forms.
"""

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.layers import normalization
from efficientnet_advprop.training import precision
from efficientnet_advprop.training import schedules


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
    # As tensors they are in a graph once, as numbers once for each variable.
    self._constants = {
      name: tf.constant(getattr(self, name))
      for name in ('rho', 'momentum', 'epsilon')
    }
    for mean_square in self._velocities:
      mean_square.assign(tf.ones_like(mean_square))

  def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
    index = self._index_dict[self._var_key(variable)]
    tf.raw_ops.ResourceApplyRMSProp(
      var=variable.handle,
      ms=self._velocities[index].handle,
      mom=self._momentums[index].handle,
      lr=tf.cast(self.learning_rate, variable.dtype),
      grad=gradient,
      **self._constants,
    )


def create_optimizer(
  config: config_lib.Config, model: tf.keras.Model
) -> tf.keras.optimizers.Optimizer:
  """Creates the optimizer of a run and its variables for those of `model`.

  With mixed_float16 it also keeps the scale of the loss; see `precision`.

  Raises:
    ConfigError: the strategy has no mixed_float16.
  """
  train = config.train
  schedule = schedules.learning_rate(config)
  # Keras clips after the gradients of all replicas are summed.
  clipped = dict(global_clipnorm=train.clip_norm)
  if train.optimizer == 'sgd':
    optimizer = tf.keras.optimizers.SGD(schedule, momentum=0.9, **clipped)
  elif train.optimizer == 'adamw':
    optimizer = tf.keras.optimizers.AdamW(
      schedule, weight_decay=train.weight_decay, **clipped
    )
    decayed = {id(variable) for variable in decayed_variables(config, model)}
    others = [v for v in model.trainable_variables if id(v) not in decayed]
    optimizer.exclude_from_weight_decay(var_list=others)
  else:
    optimizer = TensorFlow1RMSprop(
      schedule, rho=0.9, momentum=0.9, epsilon=1e-3, **clipped
    )
  # Before any restoring, so that the ones never overwrite a checkpoint.
  optimizer.build(model.trainable_variables)
  if train.precision == 'mixed_float16':
    return precision.scaling(optimizer, tf.distribute.get_strategy())
  return optimizer


def decayed_variables(
  config: config_lib.Config, model: tf.keras.Model
) -> list[tf.Variable]:
  """Returns the trainable variables that weight decay shrinks.

  Norms are left out unless `train.decay_norms` is set.
  """
  norms: set[int] = set()
  for layer in model.submodules:
    if isinstance(layer, normalization.AuxBatchNormalization):
      norms.update(id(variable) for variable in layer.trainable_variables)
  if config.train.decay_norms:
    norms.clear()
  return [v for v in model.trainable_variables if id(v) not in norms]


def penalized_variables(
  config: config_lib.Config, model: tf.keras.Model
) -> list[tf.Variable]:
  """Returns the variables whose weight penalty is a part of the loss.

  AdamW shrinks weights itself, so that there are none.
  """
  if config.train.optimizer == 'adamw':
    return []
  return decayed_variables(config, model)
