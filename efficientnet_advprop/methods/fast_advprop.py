"""Fast AdvProp (Mei et al., ICLR 2022), at the cost of vanilla training.

A step splits its images. Most are clean and go through the main norms. The
others go through the auxiliary norms twice: with noise, whose gradient both
trains the weights and makes adversarial images, and then as these images. So an
attack costs no pass of its own.

Source: github.com/meijieru/fast_advprop at de5fa50. Where its text and its code
differ, this follows the code:

- The losses of the noise and the adversarial pass are weighted by
  `train.auxiliary_weight`, and the gradient of each variable is divided by the
  weighted number of images that it saw. The paper divides by other numbers.
- The attack runs the norms in training mode and moves away from the label.

NOTE: three differences from that code. All images of the noise pass have noise;
there a normal number, meant as a probability, leaves 58% of the batches without
it. Adversarial images are dealt over the groups of the norms instead of
shuffled, which mixes them as well and needs no random numbers. Mixup and CutMix
mix the images of all passes; there those of the clean one alone, unless more is
asked for.
"""

from collections.abc import Sequence
from typing import Any, Callable, Optional

import tensorflow as tf

from efficientnet_advprop import attacks
from efficientnet_advprop import config as config_lib
from efficientnet_advprop import losses
from efficientnet_advprop.base import randomness
from efficientnet_advprop.layers import normalization
from efficientnet_advprop.methods import passes

_DOMAIN = 'adversarial'


def of_part(
  network: Any,
  batch: passes.Batch,
  config: config_lib.Config,
  parts: int,
  penalty: Callable[[], tf.Tensor],
  loss_scale: Optional[tf.Tensor] = None,
) -> passes.Result:
  """Computes the losses and gradients of a part of the global batch.

  Args:
    network: the network, with `trainable_variables`; its norms are
      `AuxBatchNormalization`.
    batch: a part of the global batch.
    config: the run.
    parts: number of equally large parts of the global batch.
    penalty: computes the weight penalty of the whole batch.
    loss_scale: what losses are multiplied by before gradients are taken, and
      the factor of the gradients that are returned. None: 1.

  Returns:
    Losses of the total, the clean, the noise and the adversarial pass, and the
    gradients, as shares of sums over all parts. The total is the loss of the
    weights that all passes share.
  """
  train, attack = config.train, config.attack
  variables = network.trainable_variables
  clean, others = split(batch, train.fast_fraction)
  num_clean = clean['label'].shape[0] * parts
  num_others = others['label'].shape[0] * parts
  weight = train.auxiliary_weight
  shared = num_clean + 2 * weight * num_others

  def scaled(loss: tf.Tensor) -> tf.Tensor:
    # Sums over images become as large as the means that other methods scale.
    return loss if loss_scale is None else loss * (loss_scale / shared)

  def sum_of_losses(images: tf.Tensor, labels: tf.Tensor, **mode: Any) -> Any:
    logits = network(images, training=True, **mode)
    return tf.reduce_sum(
      losses.cross_entropy(labels, logits, train.label_smoothing)
    )

  # The noise pass: training and attack at once.
  images, labels = others['image'], passes.labels_of(others)
  epsilon = attack.epsilon * attacks.PIXEL_LEVEL
  noise = randomness.uniform(
    others['seed'], images.shape[1:], randomness.ATTACK_START
  )
  noisy = images + (2 * noise - 1) * epsilon
  seeds = passes.other_seeds(others)
  with tf.GradientTape() as tape:
    tape.watch(noisy)
    noise_loss = sum_of_losses(noisy, labels, domain=_DOMAIN, seed=seeds)
    scaled_loss = scaled(noise_loss)
  pixel_gradient, *noise_gradients = tape.gradient(
    scaled_loss, [noisy, *variables]
  )
  step = attack.step_size * attacks.PIXEL_LEVEL
  adversarial = tf.clip_by_value(
    noisy + step * tf.sign(pixel_gradient),
    tf.maximum(images - epsilon, -1.0),
    tf.minimum(images + epsilon, 1.0),
  )
  # Within the groups in which they were attacked, batch statistics would give
  # away the labels.
  adversarial, labels, seeds = deal(
    [
      tf.stop_gradient(adversarial),
      labels,
      passes.other_seeds(others, 1),
    ],
    train.norm_groups,
  )
  with tf.GradientTape() as tape:
    adversarial_loss = sum_of_losses(
      adversarial, labels, domain=_DOMAIN, seed=seeds
    )
    clean_loss = sum_of_losses(
      clean['image'],
      passes.labels_of(clean),
      domain=config_lib.MAIN_DOMAIN,
      seed=clean['seed'],
    )
    sums = scaled(clean_loss + weight * adversarial_loss)
  gradients = tape.gradient(sums, variables)
  with tf.GradientTape() as tape:
    penalty_loss = penalty() / parts
    scaled_loss = penalty_loss
    if loss_scale is not None:
      scaled_loss = penalty_loss * loss_scale
  penalties = tape.gradient(scaled_loss, variables)

  counts = _image_counts(network, num_clean, 2 * weight * num_others)
  updates = []
  for variable, own, mid, decay in zip(
    variables, gradients, noise_gradients, penalties
  ):
    terms = [own] if own is not None else []
    terms += [weight * mid] if mid is not None else []
    # Like the authors, without the images that a norm did not see.
    factor = train.loss_weight / counts.get(id(variable), shared)
    if loss_scale is not None:
      factor *= shared
    gradient = factor * tf.add_n(terms) if terms else tf.zeros_like(variable)
    updates.append(gradient if decay is None else gradient + decay)
  total = clean_loss + weight * (noise_loss + adversarial_loss)
  own_losses = [
    train.loss_weight * total / shared + penalty_loss,
    clean_loss / num_clean,
    noise_loss / num_others,
    adversarial_loss / num_others,
  ]
  return passes.Result(tf.stack(own_losses), updates)


def split(
  batch: passes.Batch, fraction: float
) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
  """Splits a batch into clean images and others, the given share of all.

  The others are evenly spaced rows, so that a global batch is split in the same
  way on any number of replicas.

  Raises:
    ConfigError: the share of this part of the batch is no whole number.
  """
  size = batch['label'].shape[0]
  count = round(size * fraction)
  if not count or abs(count - size * fraction) > 1e-6:
    allowed = f'a share of {size} images, a part of a batch, that is whole'
    raise config_lib.ConfigError('train.fast_fraction', fraction, allowed)
  is_other = [
    (row + 1) * count // size > row * count // size for row in range(size)
  ]
  rows: list[list[int]] = [[], []]
  for row, other in enumerate(is_other):
    rows[other].append(row)
  clean, others = (
    {name: tf.gather(values, kept) for name, values in batch.items()}
    for kept in rows
  )
  return clean, others


def deal(values: Sequence[tf.Tensor], groups: int) -> list[tf.Tensor]:
  """Deals the rows of each group of a global batch to all groups in turn.

  Args:
    values: tensors [rows, ...], this replica's part of each.
    groups: number of groups of consecutive rows in the global batch.

  Returns:
    Tensors of the same shapes, with rows of other replicas too.
  """
  if groups == 1:
    return list(values)
  context = tf.distribute.get_replica_context()
  replicas = context.num_replicas_in_sync
  dealt = []
  for value in values:
    count = value.shape[0]
    rows = context.all_gather(value, 0) if replicas > 1 else value
    order = tf.reshape(tf.range(count * replicas), [groups, -1])
    order = tf.reshape(tf.transpose(order), [replicas, count])
    index = context.replica_id_in_sync_group
    dealt.append(tf.gather(rows, order[index]))
    dealt[-1] = tf.ensure_shape(dealt[-1], value.shape)
  return dealt


def _image_counts(
  network: Any, main: float, auxiliary: float
) -> dict[int, float]:
  """Returns the weighted number of images of each norm's variables, by id."""
  counts = {}
  for layer in network.submodules:
    if isinstance(layer, normalization.AuxBatchNormalization):
      for domain, count in (
        (config_lib.MAIN_DOMAIN, main),
        (_DOMAIN, auxiliary),
      ):
        norm = layer.norm_of(domain)
        counts.update({id(norm.gamma): count, id(norm.beta): count})
  return counts
