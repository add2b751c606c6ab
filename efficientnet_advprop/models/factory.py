"""Creates networks, with every variable there."""

from collections.abc import Sequence
from typing import Any

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
    auxiliary_domains: names of the domains beside `'main'`.
    synchronized: whether batch statistics span all replicas of the strategy.
    compiled: whether activations are compiled by XLA, where that may run.
    rematerialized: whether blocks are computed again backward, not stored.

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


def build_model(
  model_name: str,
  num_classes: int = 1000,
  auxiliary_domains: Sequence[str] = ('adversarial',),
  **overrides: Any,
) -> tf.keras.Model:
  """Builds a network by its name, for notebooks and other projects.

  Args:
    model_name: `efficientnet-b0` to `efficientnet-b8`, `resnet-18`, `-50`,
      `-101`, `-152` or `-200`.
    num_classes: number of logits.
    auxiliary_domains: names of the domains beside `'main'`.
    **overrides: fields of `ModelConfig`, such as `image_size=32`.

  Returns:
    A model with every variable there, called as
    `model(images, training=None, domain='main')`: float32 images
    [batch, height, width, 3] in [-1, 1] to float32 logits.

  Raises:
    ConfigError: the name or an override is not allowed.
  """
  model_config = config.model_config(model_name, overrides)
  return create_model(model_config, num_classes, auxiliary_domains)
