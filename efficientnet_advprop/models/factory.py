"""Creates networks, with every variable there."""

from collections.abc import Sequence

import tensorflow as tf

from efficientnet_advprop import config
from efficientnet_advprop.models import efficientnet
from efficientnet_advprop.models import resnet

_FAMILIES = {
  'efficientnet': efficientnet.EfficientNet,
  'resnet': resnet.ResNet,
}


def create_model(
  model_config: config.ModelConfig,
  num_classes: int,
  auxiliary_domains: Sequence[str] = ('adversarial',),
  synchronized: bool = False,
  compiled: bool = False,
  rematerialized: bool = False,
) -> tf.keras.Model:
  """Creates a network and all its variables.

  Args:
    model_config: which network, with every setting.
    num_classes: number of logits.
    auxiliary_domains: names of the domains other than `'main'`.
    synchronized: whether batch statistics span all replicas of the strategy.
    compiled: whether XLA compiles activations where it may run.
    rematerialized: whether the backward pass computes blocks again instead of
      storing them.

  Returns:
    A model that is called as `model(images, training=None, domain='main')`.
  """
  kind = _FAMILIES[model_config.architecture.family]
  model = kind(
    model_config,
    num_classes,
    auxiliary_domains,
    synchronized,
    compiled,
    rematerialized,
  )
  size = model_config.image_size
  model.build(tf.TensorShape([None, size, size, 3]))
  return model
