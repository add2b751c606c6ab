"""How a batch becomes a loss: one short function for each training method.

A method turns a batch into its passes: which images go through the network
under which norms. The loss is the sum of the passes' losses, the paper's
L^a + L^c (Algorithm 1), not their mean.
"""

from typing import Callable, NamedTuple, Optional

import tensorflow as tf

from efficientnet_advprop import attacks
from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import randomness

Batch = dict[str, tf.Tensor]


class Pass(NamedTuple):
  """Images that go through the network together."""

  name: str  # Of the loss in the logs: `clean` becomes `clean_loss`.
  domain: str
  images: tf.Tensor  # float32 [batch, height, width, 3] in [-1, 1]
  labels: tf.Tensor  # int32 [batch]
  seeds: tf.Tensor  # int32 [batch, 2], of dropout and stochastic depth


# From the network, a batch, the run and the step, a scalar.
Method = Callable[
  [tf.keras.Model, Batch, config_lib.Config, tf.Tensor], list[Pass]
]


def vanilla(
  model: tf.keras.Model,
  batch: Batch,
  config: config_lib.Config,
  step: tf.Tensor,
) -> list[Pass]:
  """Equation (1): clean images."""
  del model, config, step
  return [_clean_pass(batch)]


def adversarial(
  model: tf.keras.Model,
  batch: Batch,
  config: config_lib.Config,
  step: tf.Tensor,
) -> list[Pass]:
  """Equation (2), Madry et al.: adversarial images alone."""
  del step
  images = _attack(model, batch, config.attack, config_lib.MAIN_DOMAIN)
  return [_clean_pass(batch)._replace(name='adversarial', images=images)]


def mixture(
  model: tf.keras.Model,
  batch: Batch,
  config: config_lib.Config,
  step: tf.Tensor,
) -> list[Pass]:
  """Equation (3), Goodfellow et al.: both kinds through the same norms.

  In one pass, so that the norms see the mixture of Figure 3(a).
  """
  del step
  images = _attack(model, batch, config.attack, config_lib.MAIN_DOMAIN)
  seeds = _other_seeds(batch)
  return [
    Pass(
      'mixture',
      config_lib.MAIN_DOMAIN,
      tf.concat([batch['image'], images], 0),
      tf.concat([batch['label'], batch['label']], 0),
      tf.concat([batch['seed'], seeds], 0),
    )
  ]


def pretrain_finetune(
  model: tf.keras.Model,
  batch: Batch,
  config: config_lib.Config,
  step: tf.Tensor,
) -> list[Pass]:
  """Section 3: adversarial images for half of the steps, then clean ones."""
  images = tf.cond(
    2 * tf.cast(step, tf.int32) < config.train_steps,
    lambda: _attack(model, batch, config.attack, config_lib.MAIN_DOMAIN),
    lambda: batch['image'],
  )
  return [_clean_pass(batch)._replace(name='main', images=images)]


def advprop(
  model: tf.keras.Model,
  batch: Batch,
  config: config_lib.Config,
  step: tf.Tensor,
) -> list[Pass]:
  """Algorithm 1: clean and adversarial images, each through its own norms."""
  del step
  pair = _auxiliary_pass(model, batch, 'adversarial', 0, config.attack)
  return [_clean_pass(batch), pair]


def fine_grained(
  model: tf.keras.Model,
  batch: Batch,
  config: config_lib.Config,
  step: tf.Tensor,
) -> list[Pass]:
  """Section 5.4: plain, augmented, adversarial and further images apart.

  The batch also holds `augmented_image`. The paper does not say which images
  are attacked; here the augmented ones, as in AdvProp itself.
  """
  del step
  domains = {
    'augmented': config_lib.DomainConfig(),
    'adversarial': config_lib.DomainConfig(attack=config.attack),
    **config.train.domains,
  }
  passes = [_clean_pass(batch)]
  for index, (name, domain) in enumerate(domains.items()):
    is_plain = domain.view == 'plain'
    image = batch['image' if is_plain else 'augmented_image']
    view = {**batch, 'image': image}
    passes.append(_auxiliary_pass(model, view, name, index, domain.attack))
  return passes


METHODS: dict[str, Method] = {
  'vanilla': vanilla,
  'adversarial': adversarial,
  'mixture': mixture,
  'pretrain_finetune': pretrain_finetune,
  'advprop': advprop,
  'fine_grained': fine_grained,
}


def pass_names(config: config_lib.Config) -> tuple[str, ...]:
  """The names of the passes of the run's method, in their order."""
  main = config_lib.METHODS[config.train.method].main_pass
  return (main, *config.auxiliary_domains)


def _clean_pass(batch: Batch) -> Pass:
  return Pass(
    'clean',
    config_lib.MAIN_DOMAIN,
    batch['image'],
    batch['label'],
    batch['seed'],
  )


def _auxiliary_pass(
  model: tf.keras.Model,
  batch: Batch,
  domain: str,
  index: int,
  attack: Optional[config_lib.AttackConfig],
) -> Pass:
  """Images, attacked or not, that are trained on through norms of their own."""
  seeds = _other_seeds(batch, index)
  images = batch['image']
  if attack is not None:
    images = _attack(model, batch, attack, domain, index)
  return Pass(domain, domain, images, batch['label'], seeds)


def _other_seeds(batch: Batch, index: int = 0) -> tf.Tensor:
  """The seeds of a further pass of a batch."""
  return randomness.fold(batch['seed'], randomness.AUXILIARY_PASS + index)


def _attack(
  model: tf.keras.Model,
  batch: Batch,
  attack: config_lib.AttackConfig,
  domain: str,
  index: int = 0,
) -> tf.Tensor:
  """Attacks the network through the norms of `domain`."""
  training = attack.batch_norm == 'train'
  seeds = _other_seeds(batch, index)

  def logits_fn(images: tf.Tensor) -> tf.Tensor:
    return model(images, training=training, domain=domain, seed=seeds)

  return attacks.attack(
    logits_fn, batch['image'], batch['label'], attack, batch['seed']
  )


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
