"""Networks by their names, with weights of any kind; the network of a run."""

from collections.abc import Sequence
import os
from typing import Any, NamedTuple, Optional

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import paths
from efficientnet_advprop.data import sources
from efficientnet_advprop.models import factory
from efficientnet_advprop.weights import loading
from efficientnet_advprop.weights import readers
from efficientnet_advprop.weights import transfer


def build_model(
  model_name: str,
  num_classes: int = 1000,
  auxiliary_domains: Sequence[str] = ('adversarial',),
  weights: Optional[str] = None,
  **overrides: Any,
) -> tf.keras.Model:
  """Builds a network by its name, for notebooks and other projects.

  Args:
    model_name: `efficientnet-b0` to `efficientnet-b8`, `efficientnet-lite0` to
      `efficientnet-lite4`, `resnet-18`, `-50`, `-101`, `-152` or `-200`.
    num_classes: number of logits.
    auxiliary_domains: names of the domains other than `'main'`.
    weights: what to start from: the model_dir or a checkpoint of a run, an
      official checkpoint of TensorFlow 1, a Keras .h5 file, a .safetensors
      file, a PyTorch state dict, or `timm/<name>` (docs/weights.md). None
      draws random weights. A classifier for another number of classes than the
      weights have starts at zero; norms that they lack start as copies of the
      main ones.
    **overrides: fields of `ModelConfig`, such as `image_size=32`. Without
      `normalization`, it is the one that the weights expect.

  Returns:
    A model with every variable there, called as
    `model(images, training=None, domain='main')`: float32 images
    [batch, height, width, 3] in [-1, 1] to float32 logits.

  Raises:
    ConfigError: the name or an override is not allowed.
    CheckpointError: the weights cannot be read, or are of another network.
  """
  model_config = config_lib.model_config(model_name, overrides)
  if weights is None:
    return factory.create_model(model_config, num_classes, auxiliary_domains)
  found = readers.read(weights)
  if 'normalization' not in overrides:
    pixels = loading.expected_pixels(found, model_config.architecture)
    model_config = config_lib.model_config(
      model_name, {**overrides, 'normalization': pixels}
    )
  model = factory.create_model(model_config, num_classes, auxiliary_domains)
  transfer.initialize(model, found)
  return model


class LoadedModel(NamedTuple):
  """The network of a run.

  Attributes:
    network: with the run's weights, called as `build_model` describes.
    class_names: of its logits, in their order; None where the data have none or
      are not here any more.
    config: of the run.
  """

  network: tf.keras.Model
  class_names: Optional[tuple[str, ...]]
  config: config_lib.Config


def load_model(model_dir: str, weights: str = 'ema') -> LoadedModel:
  """Loads the network of a run, with its weights and the names of its classes.

  Args:
    model_dir: of the run.
    weights: `'ema'`, the moving average of the weights, or `'raw'`.

  Raises:
    CheckpointError: there is no run, or its checkpoint is damaged.
    ConfigError: its `config.yaml` is not allowed here.
  """
  place = os.path.join(model_dir, paths.CONFIG)
  if not tf.io.gfile.exists(place):
    raise errors.CheckpointError(f'{model_dir}: no run: it has no config.yaml')
  config = config_lib.load_config(place)
  network, _ = loading.restored(config, model_dir, weights)
  try:
    names = sources.label_names(config.data)
  except errors.DataError:  # The data need not be here any more.
    names = None
  return LoadedModel(network, tuple(names) if names else None, config)
