"""What the networks share: how they are called, created and built."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from efficientnet_advprop import config
from efficientnet_advprop.layers import convolution


class Network(tf.keras.Model):
  """`model(images, training=None, domain='main', seed=None) -> logits`.

  Images are float32 [batch, height, width, 3] in [-1, 1], logits float32
  [batch, num_classes].
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
    """Creates the network; `models.create_model` also creates its variables.

    Args:
      model_config: the name, coefficients and so on.
      num_classes: number of logits.
      auxiliary_domains: of every norm.
      synchronized: whether batch statistics span all replicas.
      compiled: whether layers may use `kernels`.
      rematerialized: whether blocks are computed again backward, not stored.
    """
    super().__init__(name=model_config.name)
    self.run_block = (
      convolution.recomputed if rematerialized else convolution.stored
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
    """Creates `stem`, `blocks` and what else `_trunk` lists.

    Args:
      **settings: of every norm.
    """
    raise NotImplementedError

  def _classifier_initializer(
    self, num_classes: int
  ) -> tf.keras.initializers.Initializer:
    """What the classifier's kernel is drawn from: each network has its own."""
    raise NotImplementedError

  def _trunk(self) -> list[Any]:
    """The layers from the images to the features, in order."""
    return [self.stem, *self.blocks]

  def build(self, input_shape: tf.TensorShape) -> None:
    channels = int(input_shape[-1])
    for layer in self._trunk():
      convolution.build(layer, channels)
      channels = layer.out_channels
    with tf.name_scope(self.classifier.name):
      self.classifier.build(tf.TensorShape([None, channels]))
    self.built = True
