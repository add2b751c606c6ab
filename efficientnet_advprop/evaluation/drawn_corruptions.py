"""Corruptions that the package imagecorruptions has otherwise or not at all.

The generators of ImageNet-C and CIFAR-10-C (hendrycks/robustness,
`ImageNet-C/create_c/make_imagenet_c.py` and `make_cifar_c.py`) share their
algorithms and differ in the strengths. The package has 13 of ImageNet-C's 15
corruptions; its elastic transform and frost are others, and it has none of
CIFAR-10-C's strengths. These are here.

Where the generators take ImageMagick's motion blur, this takes the package's,
which was written to replace it. All functions take float64 [side, side, 3] in
[0, 1], return the same before it is clipped, and draw from NumPy's global
generator, as the package does.
"""

from collections.abc import Mapping
import importlib.resources
import io
from typing import Any, Callable

import numpy as np
from PIL import Image

Strengths = tuple[Any, ...]  # One for each severity.
Function = Callable[..., np.ndarray]

_SIDE, _CIFAR_SIDE = 244, 32  # The first is a slip of the generator's, for 224.
# The five textures that the generators draw from; a sixth is not used.
_TEXTURES = (
  *('frost1.png', 'frost2.png', 'frost3.png', 'frost4.jpg', 'frost5.jpg'),
)


def gaussian_noise(image: np.ndarray, deviation: float) -> np.ndarray:
  """Adds normal noise."""
  return image + np.random.normal(size=image.shape, scale=deviation)


def shot_noise(image: np.ndarray, photons: float) -> np.ndarray:
  """Draws Poisson numbers of photons."""
  return np.random.poisson(image * photons) / photons


def impulse_noise(image: np.ndarray, amount: float) -> np.ndarray:
  """Turns a share of all values into 0 or 1, half of them each."""
  drawn = np.random.uniform(size=image.shape)
  salt = np.random.uniform(size=image.shape) < 0.5
  return np.where(drawn < amount, salt.astype(float), image)


def defocus_blur(image: np.ndarray, radius: float, blur: float) -> np.ndarray:
  """Blurs by a disk, whose edge is itself blurred."""
  import cv2

  x, y = np.meshgrid(np.arange(-8, 9), np.arange(-8, 9))
  disk = (x**2 + y**2 <= radius**2).astype(np.float32)
  kernel = cv2.GaussianBlur(disk / disk.sum(), (3, 3), sigmaX=blur)
  return cv2.filter2D(image, -1, kernel)


def glass_blur(
  image: np.ndarray, sigma: float, distance: int, rounds: int
) -> np.ndarray:
  """Blurs, moves pixels by up to a distance, and blurs again.

  NOTE: the generators mean to swap two pixels, but NumPy's views make it a copy
  of the neighbour. So it is here.
  """
  pixels = (255 * _gaussian(image, sigma)).astype(np.uint8)
  side = len(pixels)
  for _ in range(rounds):
    for row in range(side - distance, distance, -1):
      for column in range(side - distance, distance, -1):
        dx, dy = np.random.randint(-distance, distance, size=2)
        pixels[row, column] = pixels[row + dy, column + dx]
  return _gaussian(pixels / 255.0, sigma)


def motion_blur(image: np.ndarray, radius: int, sigma: float) -> np.ndarray:
  """Blurs along a line of -45 to 45 degrees."""
  return _motion_blur(image, radius, sigma, np.random.uniform(-45, 45))


def zoom_blur(image: np.ndarray, largest: float) -> np.ndarray:
  """Averages an image with its enlargements, in steps of 0.01."""
  factors = np.arange(1, largest, 0.01)
  total = image.copy()
  for factor in factors:
    total += _zoom(image, factor)
  return total / (len(factors) + 1)


def snow(
  image: np.ndarray,
  mean: float,
  deviation: float,
  zoom: float,
  threshold: float,
  radius: int,
  sigma: float,
  share: float,
) -> np.ndarray:
  """Lays falling flakes over a whitened image."""
  flakes = np.random.normal(size=image.shape[:2], loc=mean, scale=deviation)
  flakes = _zoom(flakes[..., None], zoom)[..., 0]
  flakes = np.where(flakes < threshold, 0, np.clip(flakes, 0, 1))
  angle = np.random.uniform(-135, -45)
  flakes = _motion_blur(flakes, radius, sigma, angle)[..., None]
  grey = image @ np.array([0.299, 0.587, 0.114])
  whitened = np.maximum(image, grey[..., None] * 1.5 + 0.5)
  image = share * image + (1 - share) * whitened
  return image + flakes + np.rot90(flakes, k=2)


def frost(
  image: np.ndarray, share: float, ice: float, scale: float
) -> np.ndarray:
  """Adds a part of one of five photographs of frost."""
  import cv2

  name = _TEXTURES[np.random.randint(len(_TEXTURES))]
  folder = importlib.resources.files('imagecorruptions')
  content = folder.joinpath('frost').joinpath(name).read_bytes()
  # Typed as Any, because newer OpenCVs say that it may be None.
  texture: Any = cv2.imdecode(
    np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR
  )
  if scale != 1:
    texture = cv2.resize(texture, (0, 0), fx=scale, fy=scale)
  height, width = image.shape[:2]
  # An image that is larger than a texture needs a larger texture.
  factor = max((height + 1) / len(texture), (width + 1) / texture.shape[1])
  if factor > 1:
    texture = cv2.resize(texture, (0, 0), fx=factor * 1.1, fy=factor * 1.1)
  top = np.random.randint(len(texture) - height)
  left = np.random.randint(texture.shape[1] - width)
  part = texture[top : top + height, left : left + width, ::-1]
  return share * image + ice * part / 255


def fog(image: np.ndarray, amount: float, decay: float) -> np.ndarray:
  """Adds a fractal of grey, and keeps the brightest value."""
  height, width = image.shape[:2]
  side = 2 ** (max(height, width) - 1).bit_length()
  fractal = _package().plasma_fractal(side, decay)[:height, :width, None]
  brightest = image.max()
  return (image + amount * fractal) * brightest / (brightest + amount)


def brightness(image: np.ndarray, amount: float) -> np.ndarray:
  """Adds to the value of HSV."""
  from skimage import color

  hsv = color.rgb2hsv(image)
  hsv[..., 2] = np.clip(hsv[..., 2] + amount, 0, 1)
  return color.hsv2rgb(hsv)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
  """Moves values towards the mean of their channel."""
  means = image.mean((0, 1), keepdims=True)
  return (image - means) * factor + means


def elastic_transform(
  image: np.ndarray, alpha: float, sigma: float, jitter: float
) -> np.ndarray:
  """Moves three points by up to `jitter`, then each pixel by smoothed noise."""
  import cv2
  from scipy import ndimage

  height, width = image.shape[:2]
  center = np.array([height, width]) // 2
  arm = min(height, width) // 3
  corners = [[arm, arm], [arm, -arm], [-arm, -arm]]
  points = (center + np.array(corners)).astype(np.float32)
  offsets = np.random.uniform(-jitter, jitter, points.shape)
  moved = points + offsets.astype(np.float32)
  matrix = cv2.getAffineTransform(points, moved)
  warped = cv2.warpAffine(
    image.astype(np.float32),
    matrix,
    (width, height),
    borderMode=cv2.BORDER_REFLECT_101,
  )
  shift_x, shift_y = (
    alpha
    * ndimage.gaussian_filter(
      np.random.uniform(-1, 1, (height, width)),
      sigma,
      mode='reflect',
      truncate=3,
    )
    for _ in range(2)
  )
  rows, columns = np.mgrid[:height, :width]
  places = np.stack([rows + shift_y, columns + shift_x])
  return np.stack(
    [
      ndimage.map_coordinates(channel, places, order=1, mode='reflect')
      for channel in np.moveaxis(warped, -1, 0)
    ],
    -1,
  )


def pixelate(image: np.ndarray, factor: float) -> np.ndarray:
  """Shrinks an image and enlarges it again, both by means over boxes."""
  picture = Image.fromarray(np.rint(255 * image).astype(np.uint8))
  small = [int(side * factor) for side in picture.size]
  shrunk = picture.resize(small, Image.Resampling.BOX)
  return np.asarray(shrunk.resize(picture.size, Image.Resampling.BOX)) / 255


def jpeg_compression(image: np.ndarray, quality: int) -> np.ndarray:
  """Stores an image as a JPEG."""
  content = io.BytesIO()
  picture = Image.fromarray(np.rint(255 * image).astype(np.uint8))
  picture.save(content, 'JPEG', quality=quality)
  return np.asarray(Image.open(content)) / 255


# ImageNet-C's, where the package has others: function and strengths.
IMAGENET_C: Mapping[str, tuple[Function, Strengths]] = {
  'frost': (
    frost,
    ((1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),
  ),
  'elastic_transform': (
    elastic_transform,
    (
      (_SIDE * 2, _SIDE * 0.7, _SIDE * 0.1),
      (_SIDE * 2, _SIDE * 0.08, _SIDE * 0.2),
      (_SIDE * 0.05, _SIDE * 0.01, _SIDE * 0.02),
      (_SIDE * 0.07, _SIDE * 0.01, _SIDE * 0.02),
      (_SIDE * 0.12, _SIDE * 0.01, _SIDE * 0.02),
    ),
  ),
}

# All of CIFAR-10-C's.
CIFAR_C: Mapping[str, tuple[Function, Strengths]] = {
  'gaussian_noise': (gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
  'shot_noise': (shot_noise, (500, 250, 100, 75, 50)),
  'impulse_noise': (impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
  'defocus_blur': (
    defocus_blur,
    ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
  ),
  'glass_blur': (
    glass_blur,
    ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
  ),
  'motion_blur': (motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
  'zoom_blur': (zoom_blur, (1.06, 1.11, 1.16, 1.21, 1.26)),
  'snow': (
    snow,
    (
      (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
      (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
      (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
      (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
      (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
  ),
  'frost': (
    frost,
    (
      *((1, 0.2, 0.2), (1, 0.3, 0.2), (0.9, 0.4, 0.2)),
      *((0.85, 0.4, 0.2), (0.75, 0.45, 0.2)),
    ),
  ),
  'fog': (fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
  'brightness': (brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
  'contrast': (contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
  'elastic_transform': (
    elastic_transform,
    (
      (0, 0, _CIFAR_SIDE * 0.08),
      (_CIFAR_SIDE * 0.05, _CIFAR_SIDE * 0.2, _CIFAR_SIDE * 0.07),
      (_CIFAR_SIDE * 0.08, _CIFAR_SIDE * 0.06, _CIFAR_SIDE * 0.06),
      (_CIFAR_SIDE * 0.1, _CIFAR_SIDE * 0.04, _CIFAR_SIDE * 0.05),
      (_CIFAR_SIDE * 0.1, _CIFAR_SIDE * 0.03, _CIFAR_SIDE * 0.03),
    ),
  ),
  'pixelate': (pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
  'jpeg_compression': (jpeg_compression, (80, 65, 58, 50, 40)),
}


def draw(
  table: Mapping[str, tuple[Function, Strengths]],
  image: np.ndarray,
  name: str,
  severity: int,
) -> np.ndarray:
  """Corrupts an image.

  Args:
    table: `IMAGENET_C` or `CIFAR_C`.
    image: uint8 [side, side, 3].
    name: a key of the table.
    severity: from 1 to 5.

  Returns:
    uint8, like `image`; rounded down, as the generators do.
  """
  function, strengths = table[name]
  strength = strengths[severity - 1]
  values = strength if isinstance(strength, tuple) else (strength,)
  drawn = function(image / 255.0, *values)
  # Levels that are whole numbers must not fall below them by rounding errors.
  return (np.clip(drawn, 0, 1) * 255 + 1e-9).astype(np.uint8)


def _package() -> Any:
  from imagecorruptions import corruptions  # An extra; slow to import.

  return corruptions


def _gaussian(image: np.ndarray, sigma: float) -> np.ndarray:
  from scipy import ndimage

  return ndimage.gaussian_filter(image, (sigma, sigma, 0), mode='nearest')


def _motion_blur(
  image: np.ndarray, radius: int, sigma: float, angle: float
) -> np.ndarray:
  return _package()._motion_blur(image, radius, sigma, angle)


def _zoom(image: np.ndarray, factor: float) -> np.ndarray:
  """Enlarges the centre of [side, side, channels] to the same size."""
  from scipy import ndimage

  side = len(image)
  part = int(np.ceil(side / factor))
  top = (side - part) // 2
  crop = image[top : top + part, top : top + part]
  enlarged = ndimage.zoom(crop, (factor, factor, 1), order=1)
  trim = (len(enlarged) - side) // 2
  return enlarged[trim : trim + side, trim : trim + side]
