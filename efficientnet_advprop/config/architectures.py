"""Every network by its name: family, scaling and defaults.

A new network is a row of `ARCHITECTURES`; models/ builds it from the row.
"""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Architecture:
  """A network and the settings that a run takes where it names none.

  Attributes:
    family: which class of models/ builds it: `efficientnet` or `resnet`.
    image_size: height and width of the input, in pixels.
    width_coefficient: multiplies the numbers of filters.
    depth_coefficient: multiplies the numbers of blocks.
    dropout_rate: share of features that are dropped before the classifier.
    survival_probability: of the last block; see `ModelConfig`.
    batch_norm_momentum: share of the old value when a moving statistic moves.
    repeats: blocks in each stage, before scaling.
    is_bottleneck: whether a ResNet's blocks have three convolutions.
    activation: of an EfficientNet's layers; `layers.convolution` lists them.
    excites: whether an EfficientNet's blocks have squeeze-and-excitation.
    scales_ends: whether width and depth scale an EfficientNet's stem and head
      and the depth of its first and last stage.
    normalization: of pixels; see `ModelConfig`.
  """

  family: str
  image_size: int
  width_coefficient: float = 1.0
  depth_coefficient: float = 1.0
  dropout_rate: float = 0.0
  survival_probability: float = 1.0
  batch_norm_momentum: float = 0.9
  repeats: tuple[int, ...] = ()
  is_bottleneck: bool = True
  activation: str = 'swish'
  excites: bool = True
  scales_ends: bool = True
  normalization: str = 'advprop'


def _efficientnet(
  width: float, depth: float, image_size: int, dropout_rate: float
) -> Architecture:
  return Architecture(
    'efficientnet',
    image_size,
    width,
    depth,
    dropout_rate,
    survival_probability=0.8,
    batch_norm_momentum=0.99,
    repeats=(1, 2, 2, 3, 3, 4, 1),
  )


def _lite(*scaling: Any) -> Architecture:
  """An EfficientNet without the parts that phones and int8 suffer from."""
  return dataclasses.replace(
    _efficientnet(*scaling),
    activation='relu6',
    excites=False,
    scales_ends=False,
    normalization='lite',
  )


# Width, depth, image size, dropout rate: B0-B7 as in the EfficientNet paper's
# code (models/official/efficientnet), B8 as in AdvProp's, the Lites as in
# models/official/efficientnet/lite.
ARCHITECTURES = {
  'efficientnet-b0': _efficientnet(1.0, 1.0, 224, 0.2),
  'efficientnet-b1': _efficientnet(1.0, 1.1, 240, 0.2),
  'efficientnet-b2': _efficientnet(1.1, 1.2, 260, 0.3),
  'efficientnet-b3': _efficientnet(1.2, 1.4, 300, 0.3),
  'efficientnet-b4': _efficientnet(1.4, 1.8, 380, 0.4),
  'efficientnet-b5': _efficientnet(1.6, 2.2, 456, 0.4),
  'efficientnet-b6': _efficientnet(1.8, 2.6, 528, 0.5),
  'efficientnet-b7': _efficientnet(2.0, 3.1, 600, 0.5),
  'efficientnet-b8': _efficientnet(2.2, 3.6, 672, 0.5),
  'efficientnet-lite0': _lite(1.0, 1.0, 224, 0.2),
  'efficientnet-lite1': _lite(1.0, 1.1, 240, 0.2),
  'efficientnet-lite2': _lite(1.1, 1.2, 260, 0.3),
  'efficientnet-lite3': _lite(1.2, 1.4, 280, 0.3),
  'efficientnet-lite4': _lite(1.4, 1.8, 300, 0.3),
  'resnet-18': Architecture(
    'resnet', 224, repeats=(2, 2, 2, 2), is_bottleneck=False
  ),
  'resnet-50': Architecture('resnet', 224, repeats=(3, 4, 6, 3)),
  'resnet-101': Architecture('resnet', 224, repeats=(3, 4, 23, 3)),
  'resnet-152': Architecture('resnet', 224, repeats=(3, 8, 36, 3)),
  'resnet-200': Architecture('resnet', 224, repeats=(3, 24, 36, 3)),
}
MODEL_NAMES = tuple(ARCHITECTURES)
