"""How a batch becomes a loss: one short function for each training method.

A method turns a batch into its passes: which images go through the network
under which norms. The loss is the sum of the passes' losses, the paper's
L^a + L^c (Algorithm 1), not their mean.
"""

from typing import Callable, NamedTuple

import tensorflow as tf

from efficientnet_advprop import attacks
from efficientnet_advprop import config as config_lib
from efficientnet_advprop import randomness

Batch = dict[str, tf.Tensor]


class Pass(NamedTuple):
  """Images that go through the network together."""

  name: str  # Of the loss in the logs: `clean` becomes `clean_loss`.
  domain: str
  images: tf.Tensor  # float32 [batch, height, width, 3] in [-1, 1]
  labels: tf.Tensor  # int32 [batch]
  seeds: tf.Tensor  # int32 [batch, 2], of dropout and stochastic depth


Method = Callable[[tf.keras.Model, Batch, config_lib.AttackConfig], list[Pass]]


def vanilla(
  model: tf.keras.Model, batch: Batch, attack: config_lib.AttackConfig
) -> list[Pass]:
  """Equation (1): clean images."""
  del model, attack
  return [_clean_pass(batch)]


def advprop(
  model: tf.keras.Model, batch: Batch, attack: config_lib.AttackConfig
) -> list[Pass]:
  """Algorithm 1: clean and adversarial images, each through its own norms."""
  adversarial = _adversarial_pass(model, batch, attack, 'adversarial')
  return [_clean_pass(batch), adversarial]


METHODS: dict[str, Method] = {'vanilla': vanilla, 'advprop': advprop}
# The names of each method's passes, in their order.
PASS_NAMES: dict[str, tuple[str, ...]] = {
  'vanilla': ('clean',),
  'advprop': ('clean', 'adversarial'),
}


def _clean_pass(batch: Batch) -> Pass:
  return Pass(
    'clean',
    config_lib.MAIN_DOMAIN,
    batch['image'],
    batch['label'],
    batch['seed'],
  )


def _adversarial_pass(
  model: tf.keras.Model,
  batch: Batch,
  attack: config_lib.AttackConfig,
  domain: str,
) -> Pass:
  """Attacks the network through the norms of `domain`.

  The images are then trained on through the same norms.
  """
  seeds = randomness.fold(batch['seed'], randomness.AUXILIARY_PASS)
  training = attack.batch_norm == 'train'

  def logits_fn(images: tf.Tensor) -> tf.Tensor:
    return model(images, training=training, domain=domain, seed=seeds)

  images = attacks.attack(
    logits_fn, batch['image'], batch['label'], attack, batch['seed']
  )
  return Pass('adversarial', domain, images, batch['label'], seeds)


def smoothed_cross_entropy(
  labels: tf.Tensor, logits: tf.Tensor, smoothing: float
) -> tf.Tensor:
  """Cross-entropy to labels of which a share is spread over all classes.

  Args:
    labels: integers [batch] in [0, classes).
    logits: float32 [batch, classes].
    smoothing: the share, in [0, 1).

  Returns:
    Losses, float32 [batch].
  """
  num_classes = logits.shape[-1]
  targets = tf.one_hot(labels, num_classes) * (1 - smoothing)
  targets += smoothing / num_classes
  return tf.nn.softmax_cross_entropy_with_logits(targets, logits)
