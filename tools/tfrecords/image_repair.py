"""Makes an RGB JPEG of any image file, or says why it cannot.

A JPEG that is one already stays as it is, byte for byte.
"""

import io
from typing import NamedTuple
import warnings

import numpy as np
from PIL import Image
from PIL import ImageOps
import tensorflow as tf

from efficientnet_advprop.data import records

_QUALITY = 95
_ORIENTATION = 0x0112  # The EXIF tag.
_UPRIGHT = 1
# The limits on the sides, checked below, are stricter than Pillow's.
Image.MAX_IMAGE_PIXELS = None


class UnreadableError(ValueError):
  """A file holds no usable image; the message is one line that says why."""


class Prepared(NamedTuple):
  """An RGB JPEG, its sides in pixels, and the kinds of repair it took."""

  jpeg: bytes
  height: int
  width: int
  repairs: tuple[str, ...]


def prepare(data: bytes) -> Prepared:
  """Decodes an image file in full and repairs what is not an RGB JPEG.

  Args:
    data: the bytes of a file, whatever its name says.

  Returns:
    The file itself, or its picture as a JPEG. Kinds of repair: `cmyk`, `grey`,
    `rotated` (by its EXIF tag; pictures are stored upright) and `png`, `gif`,
    `webp`, `bmp` ... for other formats (of animations the first picture).

  Raises:
    UnreadableError: the file is empty, damaged or no image, or a side is not
      in MIN_SIDE..MAX_SIDE.
  """
  if not data:
    raise UnreadableError('the file is empty')
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # Of EXIF tags that nobody needs.
    try:
      image: Image.Image = Image.open(io.BytesIO(data))
    except Exception as error:
      is_jpeg = data.startswith(b'\xff\xd8')
      reason = 'a JPEG without a whole header' if is_jpeg else 'not an image'
      raise UnreadableError(reason) from error
    _check_sides(image)
    repairs = _repairs(image)
    if not repairs:
      _check_jpeg(data)
      return Prepared(data, image.height, image.width, ())
    # Damaged files make Pillow raise errors of many types.
    try:
      image = _upright_rgb(image)
    except Exception as error:
      reason = ' '.join(str(error).split()) or type(error).__name__
      raise UnreadableError(f'cannot be decoded: {reason}') from error
  buffer = io.BytesIO()
  # Without chroma subsampling, which would blur the colors of sharp drawings.
  image.save(buffer, 'JPEG', quality=_QUALITY, subsampling=0)
  return Prepared(buffer.getvalue(), image.height, image.width, repairs)


def _check_sides(image: Image.Image) -> None:
  least, most = records.MIN_SIDE, records.MAX_SIDE
  if not least <= min(image.size) <= max(image.size) <= most:
    sides = f'{image.width} x {image.height} pixels'
    raise UnreadableError(f'{sides}; {least} to {most} a side are allowed')


def _orientation(image: Image.Image) -> int:
  try:
    return image.getexif().get(_ORIENTATION, _UPRIGHT)
  except Exception:  # A damaged tag is ignored; the picture may be intact.
    return _UPRIGHT


def _repairs(image: Image.Image) -> tuple[str, ...]:
  kinds = []
  # MPO is a JPEG with more pictures after it, which readers ignore.
  if image.format not in ('JPEG', 'MPO'):
    kinds.append(str(image.format).lower())
  if image.mode == 'CMYK':
    kinds.append('cmyk')
  elif image.mode in ('1', 'L', 'LA') or image.mode.startswith('I'):
    kinds.append('grey')
  if _orientation(image) in range(2, 9):
    kinds.append('rotated')
  return tuple(kinds)


def _check_jpeg(data: bytes) -> None:
  """Decodes a JPEG as training will; Pillow tolerates other damage."""
  try:
    tf.io.decode_jpeg(data, channels=3)
  except tf.errors.OpError:
    reason = 'a damaged JPEG, or one that was cut short'
    raise UnreadableError(reason) from None


def _upright_rgb(image: Image.Image) -> Image.Image:
  if _orientation(image) in range(2, 9):
    image = ImageOps.exif_transpose(image)
  if image.mode.startswith('I'):  # 16 bits of grey.
    grey = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255)
    image = Image.fromarray(grey.astype(np.uint8))
  if 'A' in image.getbands() or 'transparency' in image.info:
    image = image.convert('RGBA')
    white = Image.new('RGBA', image.size, 'white')
    image = Image.alpha_composite(white, image)
  return image.convert('RGB')
