"""ResNets (He et al., 2016) with auxiliary batch norms."""

from typing import Any, Optional

import tensorflow as tf

from efficientnet_advprop import config
from efficientnet_advprop.layers import convolution
from efficientnet_advprop.models import network
from efficientnet_advprop.models import scaling

# Filters of the 3x3 convolutions in each stage.
_FILTERS = (64, 128, 256, 512)
_EXPANSION = 4


class ResidualBlock(tf.keras.layers.Layer):
  """A branch of convolutions and a shortcut around it.

  A bottleneck has convolutions of 1x1, 3x3 and 1x1, the last with four times as
  many filters; a basic block has two of 3x3.
  """

  def __init__(
    self,
    channels: int,
    filters: int,
    strides: int,
    is_bottleneck: bool,
    settings: dict,
    **kwargs: Any,
  ):
    """Creates a block.

    Args:
      channels: number of input channels.
      filters: number of filters of the 3x3 convolutions.
      strides: of the block.
      is_bottleneck: whether the block has three convolutions or two.
      settings: keyword arguments of `convolution.NormalizedConv2D`.
      **kwargs: passed on to tf.keras.layers.Layer.
    """
    super().__init__(**kwargs)
    self.channels = channels
    self.out_channels = filters * (_EXPANSION if is_bottleneck else 1)
    # NOTE: the paper of 2016 strides in a bottleneck's first convolution. Its
    # authors' and Google's later code strides in the 3x3 one; the accuracy that
    # AdvProp's Table 8 starts from, 76.7 for ResNet-50, is that of the latter.
    shapes = [(filters, 3, strides), (filters, 3, 1)]
    if is_bottleneck:
      shapes = [(filters, 1, 1), shapes[0], (self.out_channels, 1, 1)]
    self.branch = [
      convolution.NormalizedConv2D(
        *shape,
        # The last activation follows the sum with the shortcut.
        activation='relu' if number < len(shapes) - 1 else None,
        name=f'conv_{number}',
        **settings,
      )
      for number, shape in enumerate(shapes)
    ]
    self.shortcut = None
    if strides != 1 or channels != self.out_channels:
      self.shortcut = convolution.NormalizedConv2D(
        self.out_channels, 1, strides, name='shortcut', **settings
      )

  def build(self, input_shape: tf.TensorShape) -> None:
    channels = self.channels
    for layer in self.branch:
      convolution.build(layer, channels)
      channels = layer.out_channels
    if self.shortcut is not None:
      convolution.build(self.shortcut, self.channels)
    super().build(input_shape)

  def call(
    self,
    inputs: tf.Tensor,
    training: Optional[bool] = None,
    domain: str = config.MAIN_DOMAIN,
  ) -> tf.Tensor:
    mode = dict(training=training, domain=domain)
    x = inputs
    for layer in self.branch:
      x = layer(x, **mode)
    if self.shortcut is not None:
      inputs = self.shortcut(inputs, **mode)
    return tf.nn.relu(x + inputs)


class ResNet(network.Network):
  """ResNet-18 to -200. Nothing is drawn at random: `seed` changes nothing.

  Strided convolutions and the first pooling pad all sides equally, so that the
  weights that torchvision, timm and Keras publish fit. NOTE: the official TPU
  code does so for convolutions, but pads its pooling by SAME.
  """

  def _create_trunk(self, **settings: Any) -> None:
    settings['epsilon'] = 1e-5
    settings['symmetric'] = True
    model_config = self.model_config
    width = model_config.width_coefficient
    channels = scaling.round_filters(_FILTERS[0], width)
    self.is_pooled = model_config.stem_stride == 2
    size = 7 if self.is_pooled else 3
    self.stem = convolution.NormalizedConv2D(
      channels,
      size,
      model_config.stem_stride,
      activation='relu',
      name='stem',
      **settings,
    )
    self.blocks: list[ResidualBlock] = []
    architecture = model_config.architecture
    for stage, repeats in enumerate(scaling.stage_repeats(model_config)):
      filters = scaling.round_filters(_FILTERS[stage], width)
      for repeat in range(repeats):
        block = ResidualBlock(
          channels,
          filters,
          2 if stage and not repeat else 1,
          architecture.is_bottleneck,
          settings,
          name=f'block_{len(self.blocks)}',
        )
        self.blocks.append(block)
        channels = block.out_channels

  def _classifier_initializer(
    self, num_classes: int
  ) -> tf.keras.initializers.Initializer:
    return tf.keras.initializers.RandomNormal(stddev=0.01)

  def call(
    self,
    images: tf.Tensor,
    training: Optional[bool] = None,
    domain: str = config.MAIN_DOMAIN,
    seed: Optional[tf.Tensor] = None,
  ) -> tf.Tensor:
    del seed
    mode: dict[str, Any] = dict(training=training, domain=domain)
    x = self.stem(self.normalized(images), **mode)
    if self.is_pooled:
      # Zeros change no maximum, as the activations are not negative.
      x = tf.nn.max_pool2d(convolution.pad_symmetrically(x, 3), 3, 2, 'VALID')
    for block in self.blocks:
      x = self.run_block(block, x, **mode)
    x = tf.cast(tf.reduce_mean(x, [1, 2]), tf.float32)
    return self.classifier(x)
