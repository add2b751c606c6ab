"""Passes: images that go through the network together, attacked or not.

Every method builds on these functions. They need a callable network and plain
TensorFlow, but neither the trainer nor a version of Keras.
"""

from collections.abc import Mapping
from typing import Any, Callable, NamedTuple

import tensorflow as tf

from efficientnet_advprop import attacks
from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import randomness

# `network(images, training=..., domain=..., seed=...)` returns logits, float32
# [batch, classes]. `seed`, int32 [batch, 2], is that of dropout and stochastic
# depth; a network that draws its own numbers may ignore it. A network whose
# images are in another pixel range, or whose outputs are no logits, also has
# `attack_options`, a dictionary of further arguments of `attacks.attack`.
Network = Callable[..., tf.Tensor]

# Of one replica: `image`, float32 [batch, height, width, 3] in [-1, 1];
# `label`, int32 [batch]; `seed`, int32 [batch, 2]. A method with two views also
# has `augmented_image`. Mixed images also have `soft_label`, float32 [batch,
# classes], and then `label` is the class with the largest share.
Batch = Mapping[str, tf.Tensor]


class Pass(NamedTuple):
  """Images that go through the network together in training mode."""

  name: str  # `clean` becomes `clean_loss` in the logs.
  domain: str
  images: tf.Tensor  # float32 [batch, height, width, 3] in [-1, 1]
  labels: tf.Tensor  # int32 [batch], or soft ones, float32 [batch, classes]
  seeds: tf.Tensor  # int32 [batch, 2]
  weight: float = 1.0  # of the pass's loss in the sum of all


class Result(NamedTuple):
  """What a part of the global batch adds to an update.

  The results of all parts, on all replicas, are summed.
  """

  # float32 [1 + passes]: the total, weight penalty included, then the passes'
  # own losses, not weighted.
  losses: tf.Tensor
  gradients: list[tf.Tensor]  # one for each trainable variable


class ScaledAttack:
  """A network whose attack raises, or lowers, a multiple of the loss.

  Attributes:
    attack_options: see `Network`.
  """

  def __init__(self, network: Network, scale: tf.Tensor):
    """Keeps the network, and the factor of the sum of its images' losses."""
    self._network = network
    options = getattr(network, 'attack_options', {})
    loss_fn = attacks.scaled_loss(scale, options.get('loss_fn'))
    self.attack_options = {**options, 'loss_fn': loss_fn}

  def __call__(self, *args: Any, **kwargs: Any) -> tf.Tensor:
    return self._network(*args, **kwargs)


def labels_of(batch: Batch) -> tf.Tensor:
  """Returns the labels of a batch to train on: soft ones if it has them."""
  return batch.get('soft_label', batch['label'])


def clean_pass(batch: Batch) -> Pass:
  """Returns the batch as it is, through the main norms."""
  domain = config_lib.MAIN_DOMAIN
  return Pass('clean', domain, batch['image'], labels_of(batch), batch['seed'])


def other_seeds(batch: Batch, index: int = 0) -> tf.Tensor:
  """Returns the seeds of another pass over a batch, different by `index`."""
  return randomness.fold(batch['seed'], randomness.AUXILIARY_PASS + index)


def adversarial_images(
  network: Network,
  batch: Batch,
  attack: config_lib.AttackConfig,
  domain: str,
  index: int = 0,
) -> tf.Tensor:
  """Attacks a network through the norms of a domain.

  Args:
    network: the network that is attacked.
    batch: `image`, `label` and `seed`.
    attack: how it is attacked; `attack.batch_norm` decides the norms' mode.
    domain: domain whose norms normalize during the attack.
    index: number of the auxiliary pass that will take the images. It makes the
      dropout of the attack that of the pass.

  Returns:
    float32 images like `batch['image']`.
  """
  training = attack.batch_norm == 'train'
  seeds = other_seeds(batch, index)

  def logits_fn(images: tf.Tensor) -> tf.Tensor:
    return network(images, training=training, domain=domain, seed=seeds)

  # A random target must differ from one class, so it needs the hard label.
  hard = attack.target == 'random'
  labels = batch['label'] if hard else labels_of(batch)
  options = getattr(network, 'attack_options', {})
  return attacks.attack(
    logits_fn, batch['image'], labels, attack, batch['seed'], **options
  )
