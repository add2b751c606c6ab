"""EfficientNet-B0 to -B8 and -Lite0 to -Lite4, with auxiliary batch norms.

Sources: Tan and Le, ICML 2019; models/official/efficientnet and its folder lite
of the tensorflow/tpu repository.
"""

from typing import Any, NamedTuple, Optional

import tensorflow as tf

from efficientnet_advprop import config
from efficientnet_advprop.base import randomness
from efficientnet_advprop.layers import convolution
from efficientnet_advprop.layers import excitation
from efficientnet_advprop.models import network
from efficientnet_advprop.models import scaling


class Stage(NamedTuple):
  """A row of the paper's Table 1, before scaling.

  The numbers of blocks are `Architecture.repeats`.
  """

  kernel_size: int
  strides: int
  expansion: int
  filters: int


STAGES = (
  Stage(3, 1, 1, 16),
  Stage(3, 2, 6, 24),
  Stage(5, 2, 6, 40),
  Stage(3, 2, 6, 80),
  Stage(5, 1, 6, 112),
  Stage(5, 2, 6, 192),
  Stage(3, 1, 6, 320),
)
_STEM_FILTERS = 32
_HEAD_FILTERS = 1280


class MobileInvertedBlock(tf.keras.layers.Layer):
  """Expansion, depthwise convolution, squeeze-excitation and projection."""

  def __init__(
    self,
    channels: int,
    stage: Stage,
    strides: int,
    activation: str,
    excites: bool,
    settings: dict,
    **kwargs: Any,
  ):
    """Creates a block.

    Args:
      channels: number of input channels.
      stage: kernel size, expansion and (scaled) filters.
      strides: of the depthwise convolution.
      activation: behind the expansion and the depthwise convolution.
      excites: whether squeeze-excitation follows the depthwise convolution.
      settings: keyword arguments of `convolution.NormalizedConv2D`.
      **kwargs: passed on to tf.keras.layers.Layer.
    """
    super().__init__(**kwargs)
    self.expand = None
    if stage.expansion != 1:
      self.expand = convolution.NormalizedConv2D(
        channels * stage.expansion,
        1,
        activation=activation,
        name='expand',
        **settings,
      )
    self.depthwise = convolution.NormalizedConv2D(
      None,
      stage.kernel_size,
      strides,
      activation=activation,
      name='depthwise',
      **settings,
    )
    self.excite = None
    if excites:
      reduced = max(1, channels // 4)
      self.excite = excitation.SqueezeExcitation(
        reduced, settings['compiled'], name='excite'
      )
    self.project = convolution.NormalizedConv2D(
      stage.filters, 1, name='project', **settings
    )
    self.out_channels = stage.filters
    self.is_residual = strides == 1 and channels == stage.filters
    self.expanded_channels = channels * stage.expansion

  def build(self, input_shape: tf.TensorShape) -> None:
    if self.expand is not None:
      convolution.build(self.expand, input_shape[-1])
    for layer in (self.depthwise, self.excite, self.project):
      if layer is not None:
        convolution.build(layer, self.expanded_channels)
    super().build(input_shape)

  def call(
    self,
    inputs: tf.Tensor,
    training: Optional[bool] = None,
    domain: str = config.MAIN_DOMAIN,
    numbers: Optional[tf.Tensor] = None,
    survival: float = 1.0,
  ) -> tf.Tensor:
    """Applies the block; `drop_path` describes `numbers` and `survival`."""
    mode = dict(training=training, domain=domain)
    x = inputs
    if self.expand is not None:
      x = self.expand(x, **mode)
    x = self.depthwise(x, **mode)
    if self.excite is not None:
      x = self.excite(x)
    x = self.project(x, **mode)
    if not self.is_residual:
      return x
    if training and survival < 1:
      x = network.drop_path(x, numbers, survival)
    return x + inputs


class EfficientNet(network.Network):
  """EfficientNet-B0 to -B8, -Lite0 to -Lite4, or any other scale.

  `seed`, int32 [batch, 2] or [2], makes dropout and stochastic depth a pure
  function of it; None draws a seed.
  """

  def _create_trunk(self, **settings: Any) -> None:
    model_config = self.model_config
    architecture = model_config.architecture
    activation = architecture.activation
    width = model_config.width_coefficient
    # The ends of an EfficientNet-Lite keep their width at every scale.
    ends_width = width if architecture.scales_ends else 1.0
    channels = scaling.round_filters(_STEM_FILTERS, ends_width)
    self.stem = convolution.NormalizedConv2D(
      channels,
      3,
      model_config.stem_stride,
      activation=activation,
      name='stem',
      **settings,
    )
    self.blocks: list[MobileInvertedBlock] = []
    for stage, repeats in zip(STAGES, scaling.stage_repeats(model_config)):
      filters = scaling.round_filters(stage.filters, width)
      for repeat in range(repeats):
        block = MobileInvertedBlock(
          channels,
          stage._replace(filters=filters),
          stage.strides if repeat == 0 else 1,
          activation,
          architecture.excites,
          settings,
          name=f'block_{len(self.blocks)}',
        )
        self.blocks.append(block)
        channels = filters
    self.features = scaling.round_filters(_HEAD_FILTERS, ends_width)
    self.head = convolution.NormalizedConv2D(
      self.features, 1, activation=activation, name='head', **settings
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
    x = self.stem(self.normalized(images), **mode)
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
    """Draws all random numbers of a pass: [batch, blocks + features]."""
    if seed is None:
      seed = tf.random.uniform([2], maxval=2**31 - 1, dtype=tf.int32)
    seeds = randomness.per_example_seeds(seed, tf.shape(images)[0])
    shape = [len(self.blocks) + self.features]
    return randomness.uniform(seeds, shape, randomness.DROPOUT)
