"""AutoAugment v0 and RandAugment, as pure functions of an image and a seed.

AutoAugment: https://arxiv.org/abs/1805.09501, in the version `v0` with which
EfficientNet and AdvProp were trained. RandAugment:
https://arxiv.org/abs/1909.13719, with the official operations and magnitudes.
"""

from collections.abc import Callable, Sequence
import functools

import numpy as np
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.data import image_ops

# 25 sub-policies of two (operation, probability, level), level from 0 to 10.
AUTOAUGMENT_V0 = (
  (('Equalize', 0.8, 1), ('ShearY', 0.8, 4)),
  (('Color', 0.4, 9), ('Equalize', 0.6, 3)),
  (('Color', 0.4, 1), ('Rotate', 0.6, 8)),
  (('Solarize', 0.8, 3), ('Equalize', 0.4, 7)),
  (('Solarize', 0.4, 2), ('Solarize', 0.6, 2)),
  (('Color', 0.2, 0), ('Equalize', 0.8, 8)),
  (('Equalize', 0.4, 8), ('SolarizeAdd', 0.8, 3)),
  (('ShearX', 0.2, 9), ('Rotate', 0.6, 8)),
  (('Color', 0.6, 1), ('Equalize', 1.0, 2)),
  (('Invert', 0.4, 9), ('Rotate', 0.6, 0)),
  (('Equalize', 1.0, 9), ('ShearY', 0.6, 3)),
  (('Color', 0.4, 7), ('Equalize', 0.6, 0)),
  (('Posterize', 0.4, 6), ('AutoContrast', 0.4, 7)),
  (('Solarize', 0.6, 8), ('Color', 0.6, 9)),
  (('Solarize', 0.2, 4), ('Rotate', 0.8, 9)),
  (('Rotate', 1.0, 7), ('TranslateY', 0.8, 9)),
  (('ShearX', 0.0, 0), ('Solarize', 0.8, 4)),
  (('ShearY', 0.8, 0), ('Color', 0.6, 4)),
  (('Color', 1.0, 0), ('Rotate', 0.6, 2)),
  (('Equalize', 0.8, 4), ('Equalize', 0.0, 8)),
  (('Equalize', 1.0, 4), ('AutoContrast', 0.6, 2)),
  (('ShearY', 0.4, 7), ('SolarizeAdd', 0.6, 7)),
  (('Posterize', 0.8, 2), ('Solarize', 0.6, 10)),
  (('Solarize', 0.6, 8), ('Equalize', 0.6, 1)),
  (('Color', 0.8, 6), ('Rotate', 0.4, 5)),
)

RANDAUGMENT_OPERATIONS = (
    'AutoContrast', 'Equalize', 'Invert', 'Rotate', 'Posterize', 'Solarize',
    'Color', 'Contrast', 'Brightness', 'Sharpness', 'ShearX', 'ShearY',
    'TranslateX', 'TranslateY', 'Cutout', 'SolarizeAdd',
)  # fmt: skip

# What translations and cut-outs measure in pixels, whatever the image size.
# NOTE: below 224 pixels, for which the papers have no figures, they shrink
# with the image: 250 pixels of a 32-pixel picture would leave nothing of it.
_FULL_SIZE = 224
_AUTOAUGMENT_TRANSLATION = 250
_RANDAUGMENT_TRANSLATION = 100
_CUTOUT = 40


# An image; a float64 [7] of the magnitude (a factor, a threshold, pixels) and
# the matrix of `image_ops.affine`; and a place in [0, 1)^2, x before y. One
# vector for all, because every tensor that enters a branch costs time.
_Apply = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


def _plain(operation: Callable[[tf.Tensor], tf.Tensor]) -> _Apply:
  return lambda image, arguments, place: operation(image)


def _valued(operation: Callable[..., tf.Tensor]) -> _Apply:
  return lambda image, arguments, place: operation(image, arguments[0])


def _affine(
  image: tf.Tensor, arguments: tf.Tensor, place: tf.Tensor
) -> tf.Tensor:
  del place
  return image_ops.affine(image, tf.cast(arguments[1:], tf.int32))


def _cutout(
  image: tf.Tensor, arguments: tf.Tensor, place: tf.Tensor
) -> tf.Tensor:
  height, width, _ = image.shape
  x, y = place[0] * width, place[1] * height
  return image_ops.cutout(image, arguments[0], x, y)


_OPERATIONS: dict[str, _Apply] = {
  'Identity': _plain(tf.identity),
  'AutoContrast': _plain(image_ops.autocontrast),
  'Equalize': _plain(image_ops.equalize),
  'Invert': _plain(image_ops.invert),
  'Posterize': _valued(image_ops.posterize),
  'Solarize': _valued(image_ops.solarize),
  'SolarizeAdd': _valued(image_ops.solarize_add),
  'Color': _valued(image_ops.color),
  'Contrast': _valued(image_ops.contrast),
  'Brightness': _valued(image_ops.brightness),
  'Sharpness': _valued(image_ops.sharpness),
  'Rotate': _affine,
  'ShearX': _affine,
  'ShearY': _affine,
  'TranslateX': lambda i, a, _: image_ops.translate(i, a[0], 0),
  'TranslateY': lambda i, a, _: image_ops.translate(i, 0, a[0]),
  'Cutout': _cutout,
}
# Half of the time these go the other way.
SIGNED = frozenset(('Rotate', 'ShearX', 'ShearY', 'TranslateX', 'TranslateY'))


def _magnitude(name: str, level: float, size: int, translation: int) -> float:
  """The argument of the operation `name` at `level`, in its own unit.

  Args:
    name: any operation but Posterize, by which the two policies mean different
      things.
    level: 10 is the strongest of AutoAugment; RandAugment goes to 30.
    size: the shorter side of the image, in pixels.
    translation: pixels at level 10 in an image of full size.
  """
  share = level / 10
  shrink = min(1, size / _FULL_SIZE)
  if name in ('ShearX', 'ShearY'):
    return share * 0.3
  if name in ('TranslateX', 'TranslateY'):
    return round(share * translation * shrink)
  if name in ('Color', 'Contrast', 'Brightness', 'Sharpness'):
    return share * 1.8 + 0.1
  scale = {'Rotate': 30, 'Solarize': 256, 'SolarizeAdd': 110}
  if name == 'Cutout':
    return int(share * _CUTOUT * shrink)
  return int(share * scale.get(name, 0))  # 0: the operation takes no argument.


def autoaugment_magnitude(name: str, level: float, size: int) -> float:
  """The argument of the operation `name` of AutoAugment at `level`.

  NOTE: the official code keeps int(0.4 * level) bits when it posterizes: none
  in one sub-policy, a black image. Here the paper's range of 4 to 8 bits holds.
  """
  if name == 'Posterize':
    return 4 + int(level * 0.4)
  return _magnitude(name, level, size, _AUTOAUGMENT_TRANSLATION)


def randaugment_magnitude(name: str, level: float, size: int) -> float:
  """The argument of the operation `name` of RandAugment at `level`.

  NOTE: the official code keeps more bits the higher the level, and shifts by a
  negative number beyond 20. Here a higher level keeps fewer, down to 4; at
  level 10 the two agree.
  """
  if name == 'Posterize':
    return 8 - min(4, int(level * 0.4))
  return _magnitude(name, level, size, _RANDAUGMENT_TRANSLATION)


def _matrix(name: str, value: float, height: int, width: int) -> np.ndarray:
  if name == 'Rotate':
    return image_ops.rotation(value, height, width)
  if name == 'ShearX':
    return image_ops.shear(value, 0)
  return image_ops.shear(0, value if name == 'ShearY' else 0)


class _Choices:
  """A table of operations with magnitudes, of which a tensor picks one."""

  def __init__(
    self, choices: Sequence[tuple[str, float]], shape: tf.TensorShape
  ):
    height, width, _ = shape
    arguments = [
      [
        [sign * value, *_matrix(name, sign * value, height, width)]
        for sign in (1, -1 if name in SIGNED else 1)
      ]
      for name, value in choices
    ]
    self._arguments = tf.constant(arguments, tf.float64)  # [choices, 2, 7]
    # Some moves of v0 have magnitude 0.
    operations = [
      _OPERATIONS['Identity' if name in SIGNED and not value else name]
      for name, value in choices
    ]
    self._kernels = list(dict.fromkeys([_OPERATIONS['Identity'], *operations]))
    self._indices = tf.constant([self._kernels.index(o) for o in operations])

  def apply(
    self,
    image: tf.Tensor,
    choice: tf.Tensor,
    applies: tf.Tensor,
    sign: tf.Tensor,
    place: tf.Tensor,
  ) -> tf.Tensor:
    """Applies the operation number `choice` if the boolean `applies` is true.

    Args:
      image: uint8 [height, width, 3].
      choice: int32, a place in the table.
      applies: a boolean.
      sign: float32 in [0, 1); one half of it reverses what has a direction.
      place: float32 [2] in [0, 1), where the operation acts.

    Returns:
      uint8 [height, width, 3].
    """
    cell = tf.stack([choice, tf.cast(sign < 0.5, tf.int32)])
    arguments = tf.gather_nd(self._arguments, cell)
    index = tf.where(applies, tf.gather(self._indices, choice), 0)
    branches = [
      functools.partial(kernel, image, arguments, place)
      for kernel in self._kernels
    ]
    return tf.ensure_shape(tf.switch_case(index, branches), image.shape)


def apply_operation(image: tf.Tensor, name: str, value: float) -> tf.Tensor:
  """Applies one operation of RandAugment, for looking at it.

  Args:
    image: uint8 [height, width, 3].
    name: of `RANDAUGMENT_OPERATIONS`.
    value: its argument; see `randaugment_magnitude`. What has a direction goes
      the other way if it is negative.

  Returns:
    uint8 [height, width, 3]; what has a place goes to the centre.
  """
  choices = _Choices([(name, value)], image.shape)
  place = tf.constant([0.5, 0.5])
  return choices.apply(image, 0, tf.constant(True), tf.constant(1.0), place)


def autoaugment(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """Applies a random sub-policy of AutoAugment v0.

  Args:
    image: uint8 [height, width, 3], height and width known when traced.
    seed: int32 [2]; it alone decides what happens.

  Returns:
    uint8 [height, width, 3].
  """
  size = min(image.shape[:2])
  draws = tf.unstack(tf.random.stateless_uniform([5], seed, alg='philox'))
  sub_policy = tf.cast(draws[0] * len(AUTOAUGMENT_V0), tf.int32)
  for stage, operations in enumerate(zip(*AUTOAUGMENT_V0)):
    names, shares, levels = zip(*operations)
    values = [autoaugment_magnitude(n, v, size) for n, v in zip(names, levels)]
    choices = _Choices(list(zip(names, values)), image.shape)
    applies = draws[1 + stage] < tf.gather(tf.constant(shares), sub_policy)
    sign = draws[3 + stage]
    image = choices.apply(image, sub_policy, applies, sign, tf.zeros([2]))
  return image


def randaugment(
  image: tf.Tensor, seed: tf.Tensor, layers: int, magnitude: float
) -> tf.Tensor:
  """Applies `layers` random operations of RandAugment, one after another.

  Args:
    image: uint8 [height, width, 3], height and width known when traced.
    seed: int32 [2]; it alone decides what happens.
    layers: how many operations (N in the paper).
    magnitude: the level of them all (M in the paper), from 0 to 30.

  Returns:
    uint8 [height, width, 3].
  """
  size = min(image.shape[:2])
  names = RANDAUGMENT_OPERATIONS
  choices = _Choices(
    [(name, randaugment_magnitude(name, magnitude, size)) for name in names],
    image.shape,
  )
  draws = tf.random.stateless_uniform([layers, 4], seed, alg='philox')
  for layer in range(layers):
    choice = tf.cast(draws[layer, 0] * len(names), tf.int32)
    sign, place = draws[layer, 1], draws[layer, 2:]
    image = choices.apply(image, choice, tf.constant(True), sign, place)
  return image


def augment(
  image: tf.Tensor, seed: tf.Tensor, config: config_lib.DataConfig
) -> tf.Tensor:
  """Applies the policy that `config.augmentation` names.

  Args:
    image: uint8 [height, width, 3], height and width known when traced.
    seed: int32 [2]; the result is a pure function of it and the image.
    config: `augmentation` and the settings of RandAugment are read.

  Returns:
    uint8 [height, width, 3].
  """
  if config.augmentation == 'autoaugment':
    return autoaugment(image, seed)
  if config.augmentation == 'randaugment':
    layers, magnitude = config.randaugment_layers, config.randaugment_magnitude
    return randaugment(image, seed, layers, magnitude)
  return image
