"""Corrupts one image: the 15 corruptions of ImageNet-C in 5 severities.

Hendrycks and Dietterich, 2019, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations". The package imagecorruptions draws them
on images of any size from 32 x 32 pixels up; `requirements-robustness.txt`
installs it.
"""

import functools
from typing import Any

import numpy as np

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors

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

# These draw from generators of their own unless they are given a seed.
_OWN_GENERATORS = ('impulse_noise', 'glass_blur')


def corrupt(
  image: np.ndarray, name: str, severity: int, seed: int, index: int = 0
) -> np.ndarray:
  """Corrupts one image, as a pure function of the arguments.

  Args:
    image: uint8 [height, width, 3], 32 pixels a side or more.
    name: one of `NAMES`.
    severity: from 1 to 5.
    seed: of the whole test set, from 0 on.
    index: of the image in its test set.

  Returns:
    uint8, like `image`.

  Raises:
    ConfigError: the corruption is unknown.
    DataError: the image is too small, or the package is not installed.
  """
  config_lib.check_choice('corruption', name, NAMES)
  if min(image.shape[:2]) < MIN_SIDE:
    height, width = image.shape[:2]
    raise errors.DataError(
      f'image {index} has {width} x {height} pixels; corruptions need'
      f' {MIN_SIDE} a side'
    )
  corruptor = package()
  entropy = [seed, NAMES.index(name), severity, index]
  words = np.random.SeedSequence(entropy).generate_state(4)
  own = {'seed': int(words[0])} if name in _OWN_GENERATORS else {}
  # The package draws from NumPy's global generator: lend it one of our own.
  state = np.random.get_state()
  np.random.seed(words)
  try:
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
