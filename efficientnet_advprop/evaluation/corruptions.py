"""Corrupts one image: the 15 corruptions of ImageNet-C in 5 severities.

Hendrycks and Dietterich, 2019, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations". Small images have the strengths of
CIFAR-10-C, larger ones those of ImageNet-C. The package imagecorruptions, of
`requirements-robustness.txt`, draws 13 of ImageNet-C's; `drawn_corruptions`
draws the rest.
"""

import functools
from typing import Any, Optional

import numpy as np

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.evaluation import drawn_corruptions

# In the order of the paper, which is also that of the package.
NAMES = (
  'gaussian_noise',
  'shot_noise',
  'impulse_noise',
  'defocus_blur',
  'glass_blur',
  'motion_blur',
  'zoom_blur',
  'snow',
  'frost',
  'fog',
  'brightness',
  'contrast',
  'elastic_transform',
  'pixelate',
  'jpeg_compression',
)
SEVERITIES = (1, 2, 3, 4, 5)
MIN_SIDE = 32  # In pixels; smaller images do not survive the blurs.

# Whose strengths: those of CIFAR-10-C, of ImageNet-C, or of the package, which
# has ImageNet-C's at every size, and another elastic transform and frost.
CIFAR_C, IMAGENET_C, PACKAGE = 'cifar_c', 'imagenet_c', 'imagecorruptions'
STRENGTHS = (CIFAR_C, IMAGENET_C, PACKAGE)
_SMALL_SIDE = 63  # Images of this side or less have CIFAR-10-C's strengths.

# These draw from generators of their own unless they are given a seed.
_OWN_GENERATORS = ('impulse_noise', 'glass_blur')


def strengths_for(image_size: int) -> str:
  """Returns whose strengths apply to images of a side in pixels."""
  return CIFAR_C if image_size <= _SMALL_SIDE else IMAGENET_C


def corrupt(
  image: np.ndarray,
  name: str,
  severity: int,
  seed: int,
  index: int = 0,
  strengths: Optional[str] = None,
) -> np.ndarray:
  """Corrupts one image, as a pure function of the arguments.

  Args:
    image: uint8 [height, width, 3], 32 pixels a side or more.
    name: one of `NAMES`.
    severity: from 1 to 5.
    seed: of the whole test set, from 0 on.
    index: of the image in its test set.
    strengths: one of `STRENGTHS`; None for those of the image's size.

  Returns:
    uint8, like `image`.

  Raises:
    ConfigError: the corruption or the strengths are unknown.
    DataError: the image is too small, or the package is not installed.
  """
  config_lib.check_choice('corruption', name, NAMES)
  if min(image.shape[:2]) < MIN_SIDE:
    height, width = image.shape[:2]
    raise errors.DataError(
      f'image {index} has {width} x {height} pixels; corruptions need'
      f' {MIN_SIDE} a side'
    )
  strengths = strengths or strengths_for(min(image.shape[:2]))
  config_lib.check_choice('strengths', strengths, STRENGTHS)
  corruptor = package()
  entropy = [seed, NAMES.index(name), severity, index]
  words = np.random.SeedSequence(entropy).generate_state(4)
  own = {'seed': int(words[0])} if name in _OWN_GENERATORS else {}
  # The package draws from NumPy's global generator: lend it one of our own.
  state = np.random.get_state()
  np.random.seed(words)
  tables = {
    CIFAR_C: drawn_corruptions.CIFAR_C,
    IMAGENET_C: drawn_corruptions.IMAGENET_C,
  }
  table = tables.get(strengths, {})
  try:
    if name in table:
      return drawn_corruptions.draw(table, image, name, severity)
    return corruptor.corrupt(
      image, severity=severity, corruption_name=name, **own
    )
  finally:
    np.random.set_state(state)


@functools.lru_cache(maxsize=1)
def package() -> Any:
  """Imports the package that corrupts images.

  Raises:
    DataError: it is not installed, or cannot be imported.
  """
  try:
    import imagecorruptions  # Slow to import, and optional.
  except ImportError as error:
    raise errors.DataError(
      f'corruptions need packages that are not here ({error}): pip install -r'
      ' requirements-robustness.txt'
    ) from None
  return imagecorruptions
