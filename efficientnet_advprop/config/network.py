"""The section `model`: the network."""

import dataclasses

from efficientnet_advprop.base.errors import ConfigError
from efficientnet_advprop.config import architectures
from efficientnet_advprop.config import fields


@dataclasses.dataclass(frozen=True)
class ModelConfig(fields.Checked):
  """The network. A value of None selects the network's own."""

  # The network, which brings its scaling. Source: paper, section 5.1 and 5.4.
  name: str = fields.field('efficientnet-b0', choices=architectures.MODEL_NAMES)
  # Multiplies the numbers of filters, which are rounded to multiples of 8.
  # Source: EfficientNet paper, section 3.3.
  width_coefficient: float = fields.field(None, optional=True, above=0, high=10)
  # Multiplies the numbers of blocks, rounded up. Source: EfficientNet paper,
  # section 3.3.
  depth_coefficient: float = fields.field(None, optional=True, above=0, high=10)
  # Height and width of the network's input, in pixels. Source: official code.
  image_size: int = fields.field(None, optional=True, low=8, high=4096)
  # Share of the features that training drops before the classifier. Source:
  # official code.
  dropout_rate: float = fields.field(None, optional=True, low=0, high=0.99)
  # Probability that training keeps the last block; it rises linearly to 1 at
  # the first block. Source: official code.
  survival_probability: float = fields.field(
    None, optional=True, above=0, high=1
  )
  # Stride of the first convolution: 1 keeps the resolution of small images, and
  # gives a ResNet a 3x3 stem without pooling. Source: 2 in all papers.
  stem_stride: int = fields.field(2, low=1, high=2)
  # Share of the old value when a moving statistic moves. Source: paper, section
  # 5.1.
  batch_norm_momentum: float = fields.field(
    None, optional=True, low=0, high=0.99999
  )
  # Which pixels the weights expect: `advprop` for [-1, 1]; `imagenet` for those
  # less ImageNet's mean and over its deviation, as in the official training
  # without AdvProp; `lite` for (p - 127) / 128 of p in [0, 255], as in the
  # official EfficientNet-Lites. The network takes [-1, 1] all the same. None:
  # `lite` for EfficientNet-Lites, else `advprop`.
  normalization: str = fields.field(
    None, optional=True, choices=('advprop', 'imagenet', 'lite')
  )

  def __post_init__(self) -> None:
    super().__post_init__()
    family = architectures.ARCHITECTURES[self.name]
    for name in (
      *('width_coefficient', 'depth_coefficient', 'image_size'),
      *('dropout_rate', 'survival_probability', 'batch_norm_momentum'),
      'normalization',
    ):
      if getattr(self, name) is None:
        self._set(name, getattr(family, name))
    for name in ('dropout_rate', 'survival_probability'):
      if self.is_resnet and getattr(self, name) != getattr(family, name):
        allowed = f'{getattr(family, name):g}: {self.name} drops nothing'
        raise ConfigError(name, getattr(self, name), allowed)

  @property
  def architecture(self) -> architectures.Architecture:
    return architectures.ARCHITECTURES[self.name]

  @property
  def is_resnet(self) -> bool:
    return self.architecture.family == 'resnet'
