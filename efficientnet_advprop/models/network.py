"""What the networks share: how they are called, created and built."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import tensorflow as tf

from efficientnet_advprop import config
from efficientnet_advprop.layers import convolution
from efficientnet_advprop.layers import normalization as norm_lib
from efficientnet_advprop.layers import recomputation

# What `ModelConfig.normalization` subtracts from pixels in [0, 1] and divides
# them by, for red, green and blue. Sources: ImageNet's statistics, and 127 and
# 128 of 255 as in the official EfficientNet-Lites.
_PIXELS = {
  'imagenet': ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
  'lite': ((127 / 255,) * 3, (128 / 255,) * 3),
}


def normalized_pixels(images: tf.Tensor, normalization: str) -> tf.Tensor:
  """Maps images in [-1, 1] to what `ModelConfig.normalization` names.

  Args:
    images: float32 [batch, height, width, 3].
    normalization: `'advprop'` leaves them as they are.

  Returns:
    Like `images`.
  """
  if normalization == 'advprop':
    return images
  means, deviations = _PIXELS[normalization]
  scale = [0.5 / deviation for deviation in deviations]
  offset = [(0.5 - m) / d for m, d in zip(means, deviations)]
  return images * scale + offset


def drop_path(
  inputs: tf.Tensor, numbers: tf.Tensor, survival: float
) -> tf.Tensor:
  """Stochastic depth: zeroes whole examples and scales the others up.

  Args:
    inputs: the residual branch, [batch, height, width, channels].
    numbers: uniform in [0, 1), float32 [batch].
    survival: probability that an example is kept.

  Returns:
    Like `inputs`, with the same expectation.
  """
  kept = tf.cast(numbers < survival, inputs.dtype) / survival
  return inputs * kept[:, tf.newaxis, tf.newaxis, tf.newaxis]


class Network(tf.keras.Model):
  """`model(images, training=None, domain='main', seed=None) -> logits`.

  Images are float32 [batch, height, width, 3] in [-1, 1], logits float32
  [batch, num_classes].

  `fit` trains plain vanilla, through the main norms alone; `AdvPropModel` of
  the network trains by AdvProp. `save` to a `.keras` file keeps all domains; a
  process that loads it has imported `efficientnet_advprop.build_model` first.
  """

  stem: convolution.NormalizedConv2D
  blocks: list[Any]

  def __init__(
    self,
    model_config: config.ModelConfig,
    num_classes: int,
    auxiliary_domains: Sequence[str] = ('adversarial',),
    synchronized: bool = False,
    compiled: bool = False,
    rematerialized: bool = False,
  ):
    """Creates the network; `factory.create_model` also creates its variables.

    Args:
      model_config: which network, with every setting.
      num_classes: number of logits.
      auxiliary_domains: names of every norm's domains other than `'main'`.
      synchronized: whether batch statistics span all replicas.
      compiled: whether XLA may compile `layers.kernels`.
      rematerialized: whether the backward pass computes blocks again instead
        of storing them.
    """
    super().__init__(name=model_config.name)
    self.num_classes = num_classes
    self.synchronized = synchronized
    self.compiled_layers = compiled
    self.rematerialized = rematerialized
    self.run_block = (
      recomputation.recomputed if rematerialized else recomputation.stored
    )
    self.model_config = model_config
    self.auxiliary_domains = tuple(auxiliary_domains)
    self._create_trunk(
      auxiliary_domains=self.auxiliary_domains,
      momentum=model_config.batch_norm_momentum,
      synchronized=synchronized,
      compiled=compiled,
    )
    self.classifier = tf.keras.layers.Dense(
      num_classes,
      kernel_initializer=self._classifier_initializer(num_classes),
      dtype=tf.float32,
      name='classifier',
    )

  def _create_trunk(self, **settings: Any) -> None:
    """Creates `stem`, `blocks` and whatever else `_trunk` lists.

    Args:
      **settings: keyword arguments of every `convolution.NormalizedConv2D`.
    """
    raise NotImplementedError

  def _classifier_initializer(
    self, num_classes: int
  ) -> tf.keras.initializers.Initializer:
    """Returns what the classifier's kernel is drawn from."""
    raise NotImplementedError

  def _trunk(self) -> list[Any]:
    """Returns the layers from the images to the features, in order."""
    return [self.stem, *self.blocks]

  def normalized(self, images: tf.Tensor) -> tf.Tensor:
    """Maps images in [-1, 1] to the pixels that the weights expect."""
    return normalized_pixels(images, self.model_config.normalization)

  def build(self, input_shape: tf.TensorShape) -> None:
    channels = int(input_shape[-1])
    for layer in self._trunk():
      convolution.build(layer, channels)
      channels = layer.out_channels
    with tf.name_scope(self.classifier.name):
      self.classifier.build(tf.TensorShape([None, channels]))
    self.built = True

  def __init_subclass__(cls, **kwargs: Any):
    """Registers each network under its name for `.keras` files."""
    super().__init_subclass__(**kwargs)
    tf.keras.utils.register_keras_serializable('efficientnet_advprop')(cls)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the constructor."""
    return {
      'model_config': dataclasses.asdict(self.model_config),
      'num_classes': self.num_classes,
      'auxiliary_domains': list(self.auxiliary_domains),
      'synchronized': self.synchronized,
      'compiled': self.compiled_layers,
      'rematerialized': self.rematerialized,
    }

  @classmethod
  def from_config(cls, values: dict[str, Any]) -> 'Network':
    """Creates a network, and its variables, from `get_config`."""
    settings = config.ModelConfig(**values['model_config'])
    network = cls(**{**values, 'model_config': settings})
    size = settings.image_size
    network.build(tf.TensorShape([None, size, size, 3]))
    return network

  def compile_from_config(self, values: dict[str, Any]) -> None:
    """Compiles a loaded network as it was compiled when it was saved."""
    self.compile(**tf.keras.saving.deserialize_keras_object(values))
    self.optimizer.build(self._main_variables())

  def train_step(self, data: Any) -> dict[str, tf.Tensor]:
    """Makes one update of what the main domain uses, for `fit`."""
    images, labels, weights = tf.keras.utils.unpack_x_y_sample_weight(data)
    with tf.GradientTape() as tape:
      logits = self(images, training=True)
      loss = self.compute_loss(images, labels, logits, weights)
    self.optimizer.minimize(loss, self._main_variables(), tape=tape)
    return self.compute_metrics(images, labels, logits, weights)

  def _main_variables(self) -> list[tf.Variable]:
    """The trainable variables without those of auxiliary norms."""
    norms = [
      norm
      for layer in self.submodules
      if isinstance(layer, norm_lib.AuxBatchNormalization)
      for norm in layer.auxiliary.values()
    ]
    auxiliary = {id(v) for norm in norms for v in norm.trainable_variables}
    return [v for v in self.trainable_variables if id(v) not in auxiliary]
