"""The moving average of weights and statistics.

Source: models/official/efficientnet of the tensorflow/tpu repository.
"""

from typing import Any

import tensorflow as tf

from efficientnet_advprop.base import variables

# The number of the first update in `decay`, as in the official code, which
# reads the step after the update. Runs of earlier versions count from 0.
FIRST_UPDATE = 1


def decay(update_number: tf.Tensor, limit: float) -> tf.Tensor:
  """Computes min(limit, (1 + n) / (10 + n)) for the number n of an update.

  Args:
    update_number: counted from `FIRST_UPDATE`, a scalar.
    limit: the decay after many updates, in [0, 1).
  """
  number = tf.cast(update_number, tf.float32)
  return tf.minimum(limit, (1 + number) / (10 + number))


def update(
  average: tf.keras.Model, model: tf.keras.Model, decay: tf.Tensor
) -> None:
  """Moves the variables of `average` towards those of `model`.

  Runs in a replica's context. All variables take part, the moving statistics
  of every domain too.
  """
  rate = 1 - decay

  def move_mirrored(strategy: tf.distribute.Strategy, pairs: Any) -> None:
    for shadow, variable in pairs:
      strategy.extended.update(shadow, variables.move, args=(variable, rate))

  context = tf.distribute.get_replica_context()
  if context.num_replicas_in_sync == 1:
    for shadow, variable in zip(average.variables, model.variables):
      variables.move(shadow, variables.read(variable), rate)
    return
  trainable = zip(average.trainable_variables, model.trainable_variables)
  context.merge_call(move_mirrored, args=(list(trainable),))
  # Statistics are a replica's own until they are read across replicas.
  for shadow, variable in zip(
    average.non_trainable_variables, model.non_trainable_variables
  ):
    variables.move(shadow, variable, rate)
