"""The six training methods of the paper: one short function for each.

A method turns a batch into its passes: which images go through the network
under which norms. The loss is the sum of the passes' losses, the paper's
L^a + L^c (Algorithm 1), not their mean.
"""

from typing import Callable, Optional

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.methods import passes
from efficientnet_advprop.methods.passes import Batch
from efficientnet_advprop.methods.passes import Network
from efficientnet_advprop.methods.passes import Pass

# Maps the network, a batch, the run and the step, a scalar, to passes.
Method = Callable[[Network, Batch, config_lib.Config, tf.Tensor], list[Pass]]


def vanilla(
  network: Network,
  batch: Batch,
  config: config_lib.Config,
  step: tf.Tensor,
) -> list[Pass]:
  """Equation (1): clean images."""
  del network, config, step
  return [passes.clean_pass(batch)]


def adversarial(
  network: Network,
  batch: Batch,
  config: config_lib.Config,
  step: tf.Tensor,
) -> list[Pass]:
  """Equation (2), Madry et al.: adversarial images alone."""
  del step
  images = _attacked(network, batch, config)
  return [passes.clean_pass(batch)._replace(name='adversarial', images=images)]


def mixture(
  network: Network,
  batch: Batch,
  config: config_lib.Config,
  step: tf.Tensor,
) -> list[Pass]:
  """Equation (3), Goodfellow et al.: both kinds through the same norms.

  In one pass, so that the norms see the mixture of Figure 3(a).
  """
  del step
  images = _attacked(network, batch, config)
  labels, seeds = passes.labels_of(batch), passes.other_seeds(batch)
  return [
    Pass(
      'mixture',
      config_lib.MAIN_DOMAIN,
      tf.concat([batch['image'], images], 0),
      tf.concat([labels, labels], 0),
      tf.concat([batch['seed'], seeds], 0),
    )
  ]


def pretrain_finetune(
  network: Network,
  batch: Batch,
  config: config_lib.Config,
  step: tf.Tensor,
) -> list[Pass]:
  """Section 3: adversarial images for half of the steps, then clean ones."""
  images = tf.cond(
    2 * tf.cast(step, tf.int32) < config.train_steps,
    lambda: _attacked(network, batch, config),
    lambda: batch['image'],
  )
  return [passes.clean_pass(batch)._replace(name='main', images=images)]


def advprop(
  network: Network,
  batch: Batch,
  config: config_lib.Config,
  step: tf.Tensor,
) -> list[Pass]:
  """Algorithm 1: clean and adversarial images, each through its own norms."""
  del step
  pair = _auxiliary_pass(network, batch, 'adversarial', 0, config.attack)
  weight = config.train.auxiliary_weight
  return [passes.clean_pass(batch), pair._replace(weight=weight)]


def fine_grained(
  network: Network,
  batch: Batch,
  config: config_lib.Config,
  step: tf.Tensor,
) -> list[Pass]:
  """Section 5.4: plain, augmented, adversarial and further images separately.

  The batch also holds `augmented_image`. The paper does not say which images
  are attacked; here the augmented ones, as in AdvProp itself.
  """
  del step
  domains = {
    'augmented': config_lib.DomainConfig(),
    'adversarial': config_lib.DomainConfig(attack=config.attack),
    **config.train.domains,
  }
  result = [passes.clean_pass(batch)]
  for index, (name, domain) in enumerate(domains.items()):
    is_plain = domain.view == 'plain'
    image = batch['image' if is_plain else 'augmented_image']
    view = {**batch, 'image': image}
    made = _auxiliary_pass(network, view, name, index, domain.attack)
    result.append(made._replace(weight=config.train.auxiliary_weight))
  return result


METHODS: dict[str, Method] = {
  'vanilla': vanilla,
  'adversarial': adversarial,
  'mixture': mixture,
  'pretrain_finetune': pretrain_finetune,
  'advprop': advprop,
  'fine_grained': fine_grained,
}


def _attacked(
  network: Network, batch: Batch, config: config_lib.Config
) -> tf.Tensor:
  """Attacks the images of a batch through the main norms."""
  domain = config_lib.MAIN_DOMAIN
  return passes.adversarial_images(network, batch, config.attack, domain)


def _auxiliary_pass(
  network: Network,
  batch: Batch,
  name: str,
  index: int,
  attack: Optional[config_lib.AttackConfig],
) -> Pass:
  """Makes the pass of an auxiliary domain, through norms of its own."""
  images = batch['image']
  if attack is not None:
    images = passes.adversarial_images(network, batch, attack, name, index)
  seeds = passes.other_seeds(batch, index)
  return Pass(name, name, images, passes.labels_of(batch), seeds)
