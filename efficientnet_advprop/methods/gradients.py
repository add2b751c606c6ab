"""The losses and gradients of a part of the global batch, for every method."""

from collections.abc import Sequence
from typing import Any, Callable, Optional

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import losses
from efficientnet_advprop.layers import normalization
from efficientnet_advprop.methods import fast_advprop
from efficientnet_advprop.methods import paper
from efficientnet_advprop.methods import passes


def loss_names(config: config_lib.Config) -> list[str]:
  """Returns the names of the losses of a method's passes, in their order."""
  method = config_lib.METHODS[config.train.method]
  names = method.main_pass, *method.further_passes, *config.auxiliary_domains
  return [f'{name}_loss' for name in names]


def of_part(
  network: Any,
  batch: passes.Batch,
  config: config_lib.Config,
  step: tf.Tensor,
  parts: int = 1,
  penalty: Callable[[], tf.Tensor] = lambda: tf.constant(0.0),
  loss_scale: Optional[tf.Tensor] = None,
) -> passes.Result:
  """Computes the losses and gradients of a part of the global batch.

  Args:
    network: the network, with `trainable_variables`.
    batch: a part of the global batch.
    config: the run; `config.train.method` is the method.
    step: number of updates that were made before, a scalar.
    parts: number of equally large parts of the global batch.
    penalty: computes the weight penalty of the whole batch.
    loss_scale: what losses are multiplied by before gradients are taken, of
      pixels, too, so that they do not become 0 in float16; a scalar. None: 1.

  Returns:
    The sums over this part, divided by the size of the global batch. The
    gradients, but not the losses, are `loss_scale` times as large.
  """
  with normalization.group_scope(config.train.norm_groups):
    if config.train.method == 'fast_advprop':
      # It takes gradients while it makes its passes.
      return fast_advprop.of_part(
        network, batch, config, parts, penalty, loss_scale
      )
    method = paper.METHODS[config.train.method]
    variables = network.trainable_variables
    size = batch['label'].shape[0] * parts
    attacked = network
    if loss_scale is not None:
      # The attack's loss is a sum over images, that of training their mean.
      attacked = passes.ScaledAttack(network, loss_scale / size)
    made = method(attacked, batch, config, step)
    return of_passes(
      network, made, variables, config, size, parts, penalty, loss_scale
    )


def of_passes(
  network: Any,
  made: Sequence[passes.Pass],
  variables: Sequence[tf.Variable],
  config: config_lib.Config,
  size: int,
  parts: int,
  penalty: Callable[[], tf.Tensor],
  loss_scale: Optional[tf.Tensor] = None,
) -> passes.Result:
  """Computes the losses of passes, their weighted sum and its gradients.

  Args:
    network: the network.
    made: the passes.
    variables: the variables of the gradients.
    config: the run.
    size: number of images in the global batch.
    parts: number of parts of the global batch.
    penalty: computes the weight penalty of the whole batch.
    loss_scale: see `of_part`.

  Returns:
    The sums over the passes, divided by `size`. A pass may hold each image of
    the batch twice.
  """
  smoothing = config.train.label_smoothing
  own = []
  with tf.GradientTape() as tape:
    for part in made:
      logits = network(
        part.images, training=True, domain=part.domain, seed=part.seeds
      )
      loss = losses.cross_entropy(part.labels, logits, smoothing)
      own.append(tf.reduce_sum(loss) / size)
    weighted = [part.weight * loss for part, loss in zip(made, own)]
    total = config.train.loss_weight * tf.add_n(weighted) + penalty() / parts
    scaled = total if loss_scale is None else total * loss_scale
  gradients = tape.gradient(scaled, variables)
  return passes.Result(tf.stack([total, *own]), gradients)
