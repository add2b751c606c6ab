"""One update of the network and of its moving average."""

from collections.abc import Iterator
import contextlib
from typing import Optional

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import devices
from efficientnet_advprop import execution as execution_lib
from efficientnet_advprop import losses as losses_lib
from efficientnet_advprop.layers import compilation
from efficientnet_advprop.methods import gradients as gradients_lib
from efficientnet_advprop.methods import passes
from efficientnet_advprop.training import averaging
from efficientnet_advprop.training import optimizers
from efficientnet_advprop.training import precision


@contextlib.contextmanager
def running(
  execution: execution_lib.Execution, is_first: bool
) -> Iterator[None]:
  """Makes the first step come sooner on a CPU whose layers XLA compiles.

  All calls of a function that contains `train_step` belong within it.

  Args:
    execution: that of the network that trains.
    is_first: whether the step is yet to be traced.

  Yields:
    Nothing.
  """
  with contextlib.ExitStack() as contexts:
    if execution.layers and not tf.config.list_physical_devices('GPU'):
      contexts.enter_context(execution_lib.graphs_as_traced())
      if is_first:
        contexts.enter_context(compilation.compiling_ahead())
    yield


# AutoGraph would take seconds to rewrite this plain Python.
@tf.autograph.experimental.do_not_convert
def train_step(
  model: tf.keras.Model,
  average: tf.keras.Model,
  optimizer: tf.keras.optimizers.Optimizer,
  batch: passes.Batch,
  config: config_lib.Config,
  first_update: int = averaging.FIRST_UPDATE,
) -> tf.Tensor:
  """Makes one update from a replica's share of a global batch.

  With `train.accumulation_steps` the share is cut into parts, which are
  attacked and run one after another. The update is that of the sum of their
  gradients. The norms see each part separately, and their statistics move once
  for each.

  Args:
    model: the network.
    average: its moving average, which is updated too.
    optimizer: the optimizer; its `iterations` is the step. If it scales the
      loss, then so does the attack, and a step whose gradients are not finite
      changes the scale and `iterations` alone.
    batch: this replica's share of the batch; see `passes.Batch`.
    config: the run.
    first_update: the number of the run's first update in `averaging.decay`.

  Returns:
    Losses, float32 [1 + passes], as this replica's share of a sum over
    replicas: the total, weight penalty included, then each pass's own. Where
    the loss is scaled, another number is the share of 1 if the step was
    skipped, else 0.
  """
  variables = model.trainable_variables
  parts = config.train.accumulation_steps
  size = batch['label'].shape[0] // parts
  scale = precision.loss_scale(optimizer)
  if scale is not None:
    statistics = precision.copies(model.non_trainable_variables)
  losses, gradients = _of_part(
    model, _part(batch, 0, size), config, optimizer.iterations, scale
  )
  for index in range(1, parts):
    # Wait for the previous part, so that its memory is freed.
    with tf.control_dependencies([losses, *gradients]):
      part = _part(batch, index, size)
    more = _of_part(model, part, config, optimizer.iterations, scale)
    losses += more.losses
    gradients = [a + b for a, b in zip(gradients, more.gradients)]
  number = optimizer.iterations + first_update
  decay = averaging.decay(number, config.train.ema_decay)
  gradients = devices.summed(gradients)
  if scale is None:
    optimizer.apply_gradients(
      zip(gradients, variables), skip_gradients_aggregation=True
    )
  else:
    made = precision.apply_gradients(optimizer, gradients, variables)
    precision.put_back(model.non_trainable_variables, statistics, made)
    decay = tf.where(made, decay, 1.0)
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    skipped = tf.where(made, 0.0, 1.0) / replicas
    losses = tf.concat([losses, [skipped]], 0)
  averaging.update(average, model, decay)
  return losses


def _part(batch: passes.Batch, index: int, size: int) -> passes.Batch:
  """Returns rows `index * size` to `(index + 1) * size` of a batch."""
  start = index * size
  return {name: values[start : start + size] for name, values in batch.items()}


def _of_part(
  model: tf.keras.Model,
  batch: passes.Batch,
  config: config_lib.Config,
  step: tf.Tensor,
  scale: Optional[tf.Tensor],
) -> passes.Result:
  """Returns the losses and gradients of a part of the global batch."""
  parts = tf.distribute.get_strategy().num_replicas_in_sync
  parts *= config.train.accumulation_steps
  decayed = optimizers.penalized_variables(config, model)

  def penalty() -> tf.Tensor:
    return losses_lib.weight_penalty(decayed, config.train.weight_decay)

  return gradients_lib.of_part(
    model, batch, config, step, parts, penalty, scale
  )
