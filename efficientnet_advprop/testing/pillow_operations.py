"""Pillow's image operations, with which those of `image_ops` are compared."""

from collections.abc import Callable

from PIL import Image
from PIL import ImageEnhance
from PIL import ImageOps

from efficientnet_advprop.data import image_ops

GREY = (image_ops.FILL,) * 3


def _solarize_add(image: Image.Image, addition: float) -> Image.Image:
  table = [min(255, v + int(addition)) if v < 128 else v for v in range(256)]
  return image.point(table * 3)


def _cutout(image: Image.Image, half: float) -> Image.Image:
  """Greys a square around the centre."""
  x, y, half = image.width // 2, image.height // 2, int(half)
  image = image.copy()
  image.paste(GREY, (x - half, y - half, x + half, y + half))
  return image


_PLAIN: dict[str, Callable[[Image.Image, float], Image.Image]] = {
  'AutoContrast': lambda image, _: ImageOps.autocontrast(image),
  'Equalize': lambda image, _: ImageOps.equalize(image),
  'Invert': lambda image, _: ImageOps.invert(image),
  'Posterize': lambda image, v: ImageOps.posterize(image, int(v)),
  'Solarize': lambda image, v: ImageOps.solarize(image, int(v)),
  'SolarizeAdd': _solarize_add,
  'Color': lambda image, v: ImageEnhance.Color(image).enhance(v),
  'Contrast': lambda image, v: ImageEnhance.Contrast(image).enhance(v),
  'Brightness': lambda image, v: ImageEnhance.Brightness(image).enhance(v),
  'Sharpness': lambda image, v: ImageEnhance.Sharpness(image).enhance(v),
  'Cutout': _cutout,
}
_MATRICES: dict[str, Callable[[float], tuple[float, ...]]] = {
  'ShearX': lambda v: (1, v, 0, 0, 1, 0),
  'ShearY': lambda v: (1, 0, 0, v, 1, 0),
  'TranslateX': lambda v: (1, 0, v, 0, 1, 0),
  'TranslateY': lambda v: (1, 0, 0, 0, 1, v),
}
OPERATIONS = (*_PLAIN, 'Rotate', *_MATRICES)


def apply(
  image: Image.Image,
  name: str,
  value: float,
  sampling: Image.Resampling = Image.Resampling.NEAREST,
) -> Image.Image:
  """Applies one of `OPERATIONS`.

  Args:
    image: RGB.
    name: which one.
    value: its argument, as in `augmentation.randaugment_magnitude`.
    sampling: of what moves pixels; `image_ops` takes the nearest ones.
  """
  if name in _PLAIN:
    return _PLAIN[name](image, value)
  if name == 'Rotate':
    return image.rotate(value, sampling, fillcolor=GREY)
  affine, matrix = Image.Transform.AFFINE, _MATRICES[name](value)
  return image.transform(image.size, affine, matrix, sampling, fillcolor=GREY)
