"""The pixel range of the images that a user's data hold."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from efficientnet_advprop import config as config_lib

# Rounding in the user's preprocessing may leave the range by this share.
_TOLERANCE = 1e-3
# A batch that spans less of the range must be in other units than stated.
_SLIVER = 1 / 64


class PixelRange(NamedTuple):
  """Values of black and white: numbers, or one for each channel."""

  low: np.ndarray  # float64 [] or [channels]
  high: np.ndarray

  def __str__(self) -> str:
    return f'({in_words(self.low)}, {in_words(self.high)})'


def in_words(values: np.ndarray) -> str:
  """Returns a number, or one for each channel, in a few digits."""
  numbers = [f'{value:.4g}' for value in np.atleast_1d(values)]
  return numbers[0] if np.ndim(values) == 0 else f'[{", ".join(numbers)}]'


def parse(pixel_range: Any) -> PixelRange:
  """Checks what a user gives as the pixel range.

  Args:
    pixel_range: (black, white), each a number or one for each channel.

  Raises:
    ConfigError: it is no such thing.
  """
  try:
    low, high = (np.asarray(end, np.float64) for end in pixel_range)
    valid = low.ndim <= 1 and np.shape(high - low) in (low.shape, high.shape)
    valid = valid and bool(np.all(np.isfinite(high - low)))
  except (TypeError, ValueError):
    valid = False
  if not valid or not np.all(low < high):
    raise config_lib.ConfigError(
      'pixel_range',
      pixel_range,
      'the values of black and white in the images that fit is given, such as'
      ' (0, 255), (0, 1) or (-1, 1), each a number or a list with one for each'
      ' channel',
    )
  return PixelRange(low, high)


def checked(images: tf.Tensor, pixels: PixelRange) -> tf.Tensor:
  """Returns a batch; running it fails if the batch leaves the pixel range.

  It also fails where the batch fills so little of the range that it must be in
  other units, such as images in [0, 1] and a range of (0, 255). The failure is
  an InvalidArgumentError with the line that `explain` finds. Code that XLA
  compiles does without the check.

  Args:
    images: [batch, ..., channels].
    pixels: the range.
  """
  # Extremes first, so that there is one number for each channel to convert.
  axes = None
  if pixels.low.ndim or pixels.high.ndim:
    axes = tf.range(tf.rank(images) - 1)
  ends = [
    tf.cast(reduce(images, axes), tf.float32)
    for reduce in (tf.reduce_min, tf.reduce_max)
  ]
  span = np.float32(pixels.high - pixels.low)
  shares = [(end - np.float32(pixels.low)) / span for end in ends]
  least, most = tf.reduce_min(shares[0]), tf.reduce_max(shares[1])
  found = [tf.reduce_min(ends[0]), tf.reduce_max(ends[1])]
  inside = (least >= -_TOLERANCE) & (most <= 1 + _TOLERANCE)
  fills = (most - least >= _SLIVER) | tf.equal(most, least)
  checks = [
    tf.debugging.Assert(inside, [_MARK, 'leave', *found]),
    tf.debugging.Assert(fills | ~inside, [_MARK, 'hardly fill', *found]),
  ]
  checks = [check for check in checks if check is not None]  # Eager: no ops.
  with tf.control_dependencies(checks):
    return tf.identity(images)


_MARK = 'pixel_range:'


def explain(error: tf.errors.InvalidArgumentError, pixels: PixelRange) -> str:
  """Returns the line for a failure of `checked`; empty if it is another one."""
  words = str(error.message).replace("b'", "'").split(_MARK)
  if len(words) < 2:
    return ''
  verb = 'leaves' if 'leave' in words[1] else 'hardly fills'
  numbers = []
  for word in words[1].replace("'", ' ').replace('[', ' ').split():
    try:
      numbers.append(float(word.rstrip(']')))
    except ValueError:
      continue
  low, high = numbers[:2]
  return (
    f'pixel_range: a batch of images from {low:g} to {high:g}'
    f' {verb} {pixels}; state the values of black and white in the images that'
    ' fit is given, or scale the images'
  )
