"""Image operations against Pillow's: differences and times."""

from collections.abc import Sequence
import functools
import json
import statistics
from typing import Optional

import numpy as np
from PIL import Image

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import randomness
from efficientnet_advprop.data import augmentation
from efficientnet_advprop.data import preprocessing
from efficientnet_advprop.testing import pillow_operations
from tools.measuring import input_peers
from tools.measuring import paths as paths_lib
from tools.measuring import photographs as photographs_lib

import tensorflow as tf  # isort: skip

_LEVELS = range(11)
_TIMED_LEVEL = 8
_BUNDLED = ('astronaut', 'chelsea', 'coffee', 'rocket')  # With scikit-image.
_ALLOWED = 1


def photographs(size: int) -> tuple[str, list[np.ndarray]]:
  """Returns where the photographs are from, and uint8 [size, size, 3]."""
  found = photographs_lib.find_pictures(photographs_lib.default_pictures())
  source = found.name
  pictures = [tf.io.decode_jpeg(j, 3).numpy() for j in found.jpegs[:2]]
  try:
    from skimage import data
  except ImportError:
    pass
  else:
    source += f', scikit-image ({", ".join(_BUNDLED)})'
    pictures += [getattr(data, name)() for name in _BUNDLED]
  images = [Image.fromarray(picture) for picture in pictures]
  return source, [np.asarray(i.resize((size, size))) for i in images]


def magnitudes(name: str, size: int) -> list[float]:
  """Returns the magnitudes at which an operation is compared."""
  values = [
    augmentation.randaugment_magnitude(name, level, size) for level in _LEVELS
  ]
  if name in augmentation.SIGNED:
    values += [-value for value in values]
  return list(dict.fromkeys(values))


def largest_difference(name: str, pictures: Sequence[np.ndarray]) -> int:
  """Returns the largest difference from Pillow, in levels of 0-255.

  Args:
    name: of the operation.
    pictures: uint8 [size, size, 3].
  """
  worst = 0
  for value in magnitudes(name, len(pictures[0])):
    for picture in pictures:
      ours = augmentation.apply_operation(tf.constant(picture), name, value)
      pillow = pillow_operations.apply(Image.fromarray(picture), name, value)
      difference = ours.numpy().astype(int) - np.asarray(pillow)
      worst = max(worst, int(abs(difference).max()))
  return worst


def _ours(image: tf.Tensor, _: tf.Tensor, name: str, value: float) -> tf.Tensor:
  return augmentation.apply_operation(image, name, value)


def _official(
  image: tf.Tensor, _: tf.Tensor, name: str, value: float
) -> tf.Tensor:
  return input_peers.OFFICIAL[name](image, value)


def _operation_paths(
  pictures: Sequence[np.ndarray],
) -> dict[str, paths_lib.Path]:
  """Returns what is timed, by side and operation; `nothing` changes nothing."""
  pictures = [pictures[i % len(pictures)] for i in range(16)]
  in_pillow = [Image.fromarray(picture) for picture in pictures]
  paths = {'nothing': paths_lib.dataset_path(pictures, lambda image, _: image)}
  for name in augmentation.RANDAUGMENT_OPERATIONS:
    value = augmentation.randaugment_magnitude(
      name, _TIMED_LEVEL, len(pictures[0])
    )

    ours = functools.partial(_ours, name=name, value=value)
    paths[f'ours {name}'] = paths_lib.dataset_path(pictures, ours)
    if name in input_peers.OFFICIAL:
      official = functools.partial(_official, name=name, value=value)
      path = paths_lib.dataset_path(pictures, official)
      paths[f'official {name}'] = path
    paths[f'pillow {name}'] = paths_lib.loop_path(
      in_pillow,
      functools.partial(pillow_operations.apply, name=name, value=value),
    )
  return paths


def _stage_paths(size: int) -> dict[str, paths_lib.Path]:
  """Returns the path from a JPEG, each time one stage longer."""
  config = config_lib.DataConfig()
  name = photographs_lib.default_pictures()
  jpegs = photographs_lib.find_pictures(name).jpegs

  def decoded(encoded: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    shape = preprocessing.image_shape(encoded)
    seed = randomness.fold(seed, randomness.CROP)
    box = preprocessing.random_box(shape, seed, size, config)
    return preprocessing.decode_and_crop(encoded, box)

  def sides(encoded: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    return tf.shape(decoded(encoded, seed))  # Crops differ: no batch of them.

  def resized(encoded: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    return preprocessing.resize(decoded(encoded, seed), size)

  def plain(encoded: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    shape = preprocessing.image_shape(encoded)
    return preprocessing.training_image(encoded, shape, seed, size, config)

  def augmented(encoded: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    return preprocessing.augment(plain(encoded, seed), seed, config)

  stages = {
    'decode the crop': sides,
    'resize and batch': resized,
    'round and flip': plain,
    'AutoAugment': augmented,
  }
  return {
    name: paths_lib.dataset_path(jpegs, stage) for name, stage in stages.items()
  }


def report(rounds: int, images: int, size: int) -> bool:
  """Compares and measures all operations, and prints tables.

  Args:
    rounds: how often each operation is timed.
    images: how many images are handled in a round.
    size: of the images, in pixels.

  Returns:
    Whether every operation is within a level of Pillow.
  """
  source, pictures = photographs(size)
  print(f'TensorFlow {tf.__version__}, {size} pixels, photographs: {source}')
  names = augmentation.RANDAUGMENT_OPERATIONS
  differences = {name: largest_difference(name, pictures) for name in names}
  times = paths_lib.measure(_operation_paths(pictures), rounds, images)
  medians = {name: statistics.median(values) for name, values in times.items()}

  def cost(side: str, name: str) -> Optional[float]:
    base = 0 if side == 'pillow' else medians['nothing']
    total = medians.get(f'{side} {name}')
    return None if total is None else round(total - base, 3)

  sides = ('ours', 'official', 'pillow')
  print(f'{"operation":14}{"difference":>11}{"ms: ours":>10}', end='')
  print(f'{"official":>10}{"Pillow":>8}')
  result: dict[str, object] = {'max_difference': max(differences.values())}
  for name in names:
    costs = {side: cost(side, name) for side in sides}
    cells = ['-' if c is None else f'{c:.3f}' for c in costs.values()]
    print(f'{name:14}{differences[name]:11}', end='')
    print(f'{cells[0]:>10}{cells[1]:>10}{cells[2]:>8}')
    result[name] = costs
  stages = paths_lib.measure(_stage_paths(size), rounds, images)
  before = 0.0
  print(f'{"stage":18}{"ms":>8}')
  for name, values in stages.items():
    total = statistics.median(values)
    result[name] = round(total - before, 3)
    print(f'{name:18}{result[name]:8.3f}')
    before = total
  print(json.dumps(result))
  return max(differences.values()) <= _ALLOWED
