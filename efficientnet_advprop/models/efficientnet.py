"""EfficientNet-B0 to -B8 (Tan and Le, ICML 2019) with auxiliary batch norms."""

import math
from typing import Any, NamedTuple, Optional

import tensorflow as tf

from efficientnet_advprop import config
from efficientnet_advprop.base import randomness
from efficientnet_advprop.layers import convolution as layers
from efficientnet_advprop.models import network


class Stage(NamedTuple):
  """A row of the paper's Table 1, before scaling."""

  repeats: int
  kernel_size: int
  strides: int
  expansion: int
  filters: int


STAGES = (
  Stage(1, 3, 1, 1, 16),
  Stage(2, 3, 2, 6, 24),
  Stage(2, 5, 2, 6, 40),
  Stage(3, 3, 2, 6, 80),
  Stage(3, 5, 1, 6, 112),
  Stage(4, 5, 2, 6, 192),
  Stage(1, 3, 1, 6, 320),
)
_STEM_FILTERS = 32
_HEAD_FILTERS = 1280


def round_filters(filters: int, width: float) -> int:
  """Scales a number of filters and rounds it to a multiple of 8.

  As the official `round_filters`: to the nearest, at least 8, and never more
  than 10% down.
  """
  scaled = filters * width
  rounded = max(8, int(scaled + 4) // 8 * 8)
  return rounded + 8 if rounded < 0.9 * scaled else rounded


def round_repeats(repeats: int, depth: float) -> int:
  """Scales a number of blocks and rounds it up."""
  return math.ceil(repeats * depth)


class MobileInvertedBlock(tf.keras.layers.Layer):
  """Expansion, depthwise convolution, squeeze-excitation and projection."""

  def __init__(
    self,
    channels: int,
    stage: Stage,
    strides: int,
    settings: dict,
    **kwargs: Any,
  ):
    """Creates a block.

    Args:
      channels: of the input.
      stage: kernel size, expansion and (scaled) filters.
      strides: of the depthwise convolution.
      settings: keyword arguments of `layers.NormalizedConv2D`.
      **kwargs: passed on to tf.keras.layers.Layer.
    """
    super().__init__(**kwargs)
    convolution = layers.NormalizedConv2D
    self.expand = None
    if stage.expansion != 1:
      self.expand = convolution(
        channels * stage.expansion,
        1,
        swish=True,
        name='expand',
        **settings,
      )
    self.depthwise = convolution(
      None,
      stage.kernel_size,
      strides,
      swish=True,
      name='depthwise',
      **settings,
    )
    reduced = max(1, channels // 4)
    self.excite = layers.SqueezeExcitation(
      reduced, settings['compiled'], name='excite'
    )
    self.project = convolution(stage.filters, 1, name='project', **settings)
    self.out_channels = stage.filters
    self.is_residual = strides == 1 and channels == stage.filters
    self.expanded_channels = channels * stage.expansion

  def build(self, input_shape: tf.TensorShape) -> None:
    if self.expand is not None:
      layers.build(self.expand, input_shape[-1])
    for layer in (self.depthwise, self.excite, self.project):
      layers.build(layer, self.expanded_channels)
    super().build(input_shape)

  def call(
    self,
    inputs: tf.Tensor,
    training: Optional[bool] = None,
    domain: str = config.MAIN_DOMAIN,
    numbers: Optional[tf.Tensor] = None,
    survival: float = 1.0,
  ) -> tf.Tensor:
    """Applies the block; `numbers` and `survival` are those of drop_path."""
    mode = dict(training=training, domain=domain)
    x = inputs
    if self.expand is not None:
      x = self.expand(x, **mode)
    x = self.excite(self.depthwise(x, **mode))
    x = self.project(x, **mode)
    if not self.is_residual:
      return x
    if training and survival < 1:
      x = layers.drop_path(x, numbers, survival)
    return x + inputs


class EfficientNet(network.Network):
  """EfficientNet-B0 to -B8, or any other scale.

  `seed`, int32 [batch, 2] or [2], makes dropout and stochastic depth a pure
  function of it; None draws a seed.
  """

  def _create_trunk(self, **settings: Any) -> None:
    model_config = self.model_config
    width = model_config.width_coefficient
    channels = round_filters(_STEM_FILTERS, width)
    self.stem = layers.NormalizedConv2D(
      channels,
      3,
      model_config.stem_stride,
      swish=True,
      name='stem',
      **settings,
    )
    self.blocks: list[MobileInvertedBlock] = []
    for stage in STAGES:
      filters = round_filters(stage.filters, width)
      for repeat in range(
        round_repeats(stage.repeats, model_config.depth_coefficient)
      ):
        block = MobileInvertedBlock(
          channels,
          stage._replace(filters=filters),
          stage.strides if repeat == 0 else 1,
          settings,
          name=f'block_{len(self.blocks)}',
        )
        self.blocks.append(block)
        channels = filters
    self.features = round_filters(_HEAD_FILTERS, width)
    self.head = layers.NormalizedConv2D(
      self.features, 1, swish=True, name='head', **settings
    )

  def _classifier_initializer(
    self, num_classes: int
  ) -> tf.keras.initializers.Initializer:
    bound = num_classes**-0.5
    return tf.keras.initializers.RandomUniform(-bound, bound)

  def _trunk(self) -> list[Any]:
    return [*super()._trunk(), self.head]

  def call(
    self,
    images: tf.Tensor,
    training: Optional[bool] = None,
    domain: str = config.MAIN_DOMAIN,
    seed: Optional[tf.Tensor] = None,
  ) -> tf.Tensor:
    mode: dict[str, Any] = dict(training=training, domain=domain)
    depth = len(self.blocks)
    numbers: Any = self._draw(images, seed) if training else None
    pixels = self.model_config.normalization
    x = layers.normalized_pixels(images, pixels)
    x = self.stem(x, **mode)
    for index, block in enumerate(self.blocks):
      drop_rate = 1 - self.model_config.survival_probability
      x = self.run_block(
        block,
        x,
        **mode,
        numbers=numbers[:, index] if training else None,
        survival=1 - drop_rate * index / depth,
      )
    x = self.head(x, **mode)
    x = tf.cast(tf.reduce_mean(x, [1, 2]), tf.float32)
    dropout_rate = self.model_config.dropout_rate
    if training and dropout_rate:
      kept = tf.cast(numbers[:, depth:] >= dropout_rate, tf.float32)
      x *= kept / (1 - dropout_rate)
    return self.classifier(x)

  def _draw(self, images: tf.Tensor, seed: Optional[tf.Tensor]) -> tf.Tensor:
    """All the random numbers of a pass: [batch, blocks + features]."""
    if seed is None:
      seed = tf.random.uniform([2], maxval=2**31 - 1, dtype=tf.int32)
    seeds = randomness.per_example_seeds(seed, tf.shape(images)[0])
    shape = [len(self.blocks) + self.features]
    return randomness.uniform(seeds, shape, randomness.DROPOUT)
