"""The image operations of AutoAugment and RandAugment, equal to Pillow's.

Every operation takes and returns a uint8 RGB image [height, width, 3], height
and width known; other arguments are numbers or scalar tensors. The arithmetic
is Pillow's own, mostly in integers, so that a result depends neither on the
machine nor on whether XLA compiled it. All work eagerly, in `tf.function` and
in `tf.data`.

Geometry maps the centre of each output pixel back into the input and takes the
pixel that it falls in (nearest sampling), in 16.16 fixed point as Pillow does;
what falls outside the input becomes grey, 128.
"""

from collections.abc import Callable, Sequence
import functools
import math
from typing import Union

import numpy as np
import tensorflow as tf

from efficientnet_advprop.data import translation

Scalar = Union[int, float, tf.Tensor]

FILL = 128
_LEVELS = 256
_ONE = 1 << 16  # In fixed point.
# Pillow's weights of R, G and B in the grey value, times 2^16.
_GREY_WEIGHTS = (19595, 38470, 7471)


@functools.cache
def _xla_available() -> bool:
  """Whether this build of TensorFlow compiles and runs CPU kernels by XLA."""
  probe = tf.function(lambda x: x + 1, jit_compile=True, autograph=False)
  with tf.init_scope(), tf.device('CPU'):
    try:
      return int(probe(tf.constant(1))) == 2
    except (tf.errors.OpError, ValueError):
      return False


def _compiled(kernel: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
  """Has XLA fuse `kernel` into one loop where it can; the result is equal.

  A chain of TensorFlow ops goes through memory once per op, and its gather
  copies element by element: fused, these operations are several times faster.
  """
  fused = tf.function(kernel, jit_compile=True, autograph=False)

  @functools.wraps(kernel)
  def run(image: tf.Tensor, *parameters: tf.Tensor) -> tf.Tensor:
    return (fused if _xla_available() else kernel)(image, *parameters)

  return run


def _compiled_per_value(
  kernel: Callable[..., tf.Tensor],
) -> Callable[..., tf.Tensor]:
  """`_compiled` for what treats all values alike: a flat loop is faster."""
  flat = _compiled(kernel)

  @functools.wraps(kernel)
  def run(image: tf.Tensor, *parameters: tf.Tensor) -> tf.Tensor:
    values = flat(tf.reshape(image, [-1]), *parameters)
    return tf.reshape(values, image.shape)

  return run


def _int32(value: Scalar) -> tf.Tensor:
  return tf.cast(value, tf.int32)


def _float32(value: Scalar) -> tf.Tensor:
  return tf.cast(value, tf.float32)


def _rounded(product: tf.Tensor) -> tf.Tensor:
  """Keeps XLA from fusing `product` and a sum into one multiply-add.

  That rounds once where Pillow rounds twice, and wherever the exact sum is a
  whole number the truncated result may differ by one.
  """
  return tf.maximum(product, -1e6)  # Far below any value that occurs.


# Point operations.


def invert(image: tf.Tensor) -> tf.Tensor:
  """255 minus each value."""
  return 255 - image


@_compiled_per_value
def _solarize(image: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
  return tf.where(_int32(image) < threshold, image, 255 - image)


def solarize(image: tf.Tensor, threshold: Scalar) -> tf.Tensor:
  """Inverts the values from `threshold` on; 256 leaves all as they are."""
  return _solarize(image, _int32(threshold))


@_compiled_per_value
def _solarize_add(image: tf.Tensor, addition: tf.Tensor) -> tf.Tensor:
  values = _int32(image)
  added = tf.cast(tf.clip_by_value(values + addition, 0, 255), tf.uint8)
  return tf.where(values < 128, added, image)


def solarize_add(image: tf.Tensor, addition: Scalar) -> tf.Tensor:
  """Adds `addition` to the values below 128, up to 255."""
  return _solarize_add(image, _int32(addition))


@_compiled_per_value
def _posterize(image: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
  dropped = 8 - bits
  kept = tf.bitwise.right_shift(_int32(image), dropped)
  return tf.cast(tf.bitwise.left_shift(kept, dropped), tf.uint8)


def posterize(image: tf.Tensor, bits: Scalar) -> tf.Tensor:
  """Keeps the `bits` (1-8) highest bits of each value."""
  return _posterize(image, _int32(bits))


def _rows(image: tf.Tensor) -> tf.Tensor:
  """The image as [height, width * 3]: a last axis of length 3 is slow."""
  height, width, _ = image.shape
  return tf.reshape(image, [height, width * 3])


def _in_bins(rows: tf.Tensor) -> tf.Tensor:
  """Numbers the values of all channels from 0 to 3 * 256 - 1, as int32."""
  channels = np.arange(3, dtype=np.int32) * _LEVELS
  return _int32(rows) + np.tile(channels, rows.shape[1] // 3)


@_compiled
def _mapped(rows: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
  return tf.gather(table, _in_bins(rows))


def _look_up(image: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
  """Replaces each value v of channel c by table[c, v], cut to [0, 255]."""
  # Not part of the compiled kernel, which would compute it again per pixel.
  table = tf.cast(tf.clip_by_value(table, 0, 255), tf.uint8)
  mapped = _mapped(_rows(image), tf.reshape(table, [-1]))
  return tf.reshape(mapped, image.shape)


def autocontrast(image: tf.Tensor) -> tf.Tensor:
  """Stretches each channel to the range [0, 255]."""
  low = tf.cast(tf.reduce_min(image, [0, 1]), tf.float64)[:, tf.newaxis]
  high = tf.cast(tf.reduce_max(image, [0, 1]), tf.float64)[:, tf.newaxis]
  scale = tf.where(high > low, 255 / tf.maximum(high - low, 1), 1)
  offset = tf.where(high > low, -low * scale, 0)
  return _look_up(image, tf.range(_LEVELS, dtype=tf.float64) * scale + offset)


def _histogram(image: tf.Tensor) -> tf.Tensor:
  """How often each channel has each value, int32 [3, 256]."""
  counts = tf.raw_ops.DenseBincount(
    input=tf.reshape(_in_bins(_rows(image)), [-1]),
    size=3 * _LEVELS,
    weights=tf.constant([], tf.int32),
  )
  return tf.reshape(counts, [3, _LEVELS])


def equalize(image: tf.Tensor) -> tf.Tensor:
  """Spreads the values of each channel to a uniform histogram."""
  counts = _histogram(image)
  values = tf.range(_LEVELS)
  below = tf.cumsum(counts, axis=1, exclusive=True)
  # All pixels but those of the highest value: the largest `below` that a value
  # of the image has.
  lower = tf.reduce_max(tf.where(counts > 0, below, 0), 1, keepdims=True)
  step = lower // 255
  spread = (step // 2 + below) // tf.maximum(step, 1)
  return _look_up(image, tf.where(step > 0, spread, values))


# Blends of the image with a degenerate version of itself. A factor of 0 gives
# the degenerate image, 1 the image, more than 1 exaggerates the difference.


def _blend(
  degenerate: tf.Tensor, values: tf.Tensor, factor: tf.Tensor
) -> tf.Tensor:
  change = factor * _float32(values - degenerate)
  mixed = _float32(degenerate) + _rounded(change)
  return tf.cast(tf.clip_by_value(mixed, 0, 255), tf.uint8)


def _grey(rows: tf.Tensor) -> tf.Tensor:
  """For each value of int32 rows [height, width * 3] its pixel's grey."""
  # The weights of the neighbours on both sides depend on the channel alone.
  length = rows.shape[1]
  padded = tf.pad(rows, [[0, 0], [2, 2]])
  total = tf.constant(0x8000)
  for shift in range(5):
    channels = range(shift - 2, shift + 1)  # The neighbour's, of R, G and B.
    period = [_GREY_WEIGHTS[c] if 0 <= c < 3 else 0 for c in channels]
    weights = np.tile(np.array(period, np.int32), length // 3)
    total += padded[:, shift : shift + length] * weights
  return tf.bitwise.right_shift(total, 16)


@_compiled
def _color(rows: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
  values = _int32(rows)
  return _blend(_grey(values), values, factor)


def color(image: tf.Tensor, factor: Scalar) -> tf.Tensor:
  """Blends the image with its grey version."""
  return tf.reshape(_color(_rows(image), _float32(factor)), image.shape)


@_compiled
def _contrast(rows: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
  values = _int32(rows)
  total = tf.reduce_sum(tf.cast(tf.reduce_sum(_grey(values), 1), tf.int64))
  count = tf.size(rows, tf.int64)
  mean = _int32((2 * total + count) // (2 * count))
  return _blend(mean, values, factor)


def contrast(image: tf.Tensor, factor: Scalar) -> tf.Tensor:
  """Blends the image with the mean of its grey version."""
  return tf.reshape(_contrast(_rows(image), _float32(factor)), image.shape)


@_compiled_per_value
def _brightness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
  return _blend(tf.constant(0), _int32(image), factor)


def brightness(image: tf.Tensor, factor: Scalar) -> tf.Tensor:
  """Blends the image with black."""
  return _brightness(image, _float32(factor))


@_compiled
def _sharpness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
  values = _int32(image)
  rows = values[:-2] + values[1:-1] + values[2:]
  window = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
  inner = values[1:-1, 1:-1]
  smooth = (2 * (window + 4 * inner) + 13) // 26  # Rounded thirteenths.
  blended = _blend(smooth, inner, factor)
  # Pillow leaves the border as it is.
  body = tf.concat([image[1:-1, :1], blended, image[1:-1, -1:]], 1)
  return tf.concat([image[:1], body, image[-1:]], 0)


def sharpness(image: tf.Tensor, factor: Scalar) -> tf.Tensor:
  """Blends the image with a smoothed version; an image below 3x3 stays."""
  if None not in image.shape and min(image.shape[:2]) < 3:
    return image
  return _sharpness(image, _float32(factor))


# Geometry. A matrix (a, b, c, d, e, f) takes the input at (ax + by + c,
# dx + ey + f) for the output pixel (x, y), coordinates from the image's corner.


def _fixed_point(matrix: Sequence[float]) -> np.ndarray:
  a, b, c, d, e, f = matrix
  # From the corner of the image to the centres of pixels.
  matrix = a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5
  return np.floor(np.array(matrix) * _ONE + 0.5).astype(np.int32)


def rotation(degrees: float, height: int, width: int) -> np.ndarray:
  """The matrix, for `affine`, of a counterclockwise turn about the centre."""
  angle = -math.radians(degrees)
  cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
  x, y = width / 2, height / 2
  c, f = cosine * -x + sine * -y + x, -sine * -x + cosine * -y + y
  return _fixed_point((cosine, sine, c, -sine, cosine, f))


def shear(x: float, y: float) -> np.ndarray:
  """The matrix that moves rows left by `x` times y and columns up by `y`."""
  return _fixed_point((1, x, 0, y, 1, 0))


@_compiled
def _affine(image: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
  height, width, _ = image.shape
  a, b, c, d, e, f = tf.unstack(matrix, 6)
  y, x = np.arange(height)[:, np.newaxis], np.arange(width)[np.newaxis]
  column = tf.bitwise.right_shift(a * x + b * y + c, 16)
  row = tf.bitwise.right_shift(d * x + e * y + f, 16)
  inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
  index = tf.where(inside, row * width + column, 0)
  pixels = tf.gather(tf.reshape(image, [-1, 3]), index)
  return tf.where(inside[..., tf.newaxis], pixels, tf.cast(FILL, tf.uint8))


def affine(image: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
  """Moves pixels by a matrix of `rotation` or `shear`, int32 [6]."""
  return _affine(image, tf.convert_to_tensor(matrix, tf.int32))


def translate(image: tf.Tensor, x: Scalar, y: Scalar) -> tf.Tensor:
  """Moves the image left by `x` and up by `y` whole pixels."""
  return translation.translate(image, x, y, FILL)


@_compiled
def _cutout(
  image: tf.Tensor, half: tf.Tensor, x: tf.Tensor, y: tf.Tensor
) -> tf.Tensor:
  rows = tf.range(tf.shape(image)[0])[:, tf.newaxis, tf.newaxis]
  columns = tf.range(tf.shape(image)[1])[tf.newaxis, :, tf.newaxis]
  inside = (rows >= y - half) & (rows < y + half)
  inside &= (columns >= x - half) & (columns < x + half)
  return tf.where(inside, tf.cast(FILL, tf.uint8), image)


def cutout(image: tf.Tensor, half: Scalar, x: Scalar, y: Scalar) -> tf.Tensor:
  """Greys the square of side 2 * `half` around the pixel (x, y)."""
  return _cutout(image, _int32(half), _int32(x), _int32(y))
