"""The peers of the input path: the official tf.data code and Pillow.

`official_*` re-creates in own code the structure that the official EfficientNet
code has published: a chain of `tf.cond`, one per sub-policy, in each a
`tf.cond` per operation; a histogram per channel; casts to float and back; and
geometry on four channels, of which the last one marks the pixels that came from
inside the image. `pillow_*` re-creates the path of timm's published code:
Pillow on one image at a time, geometry by bilinear or bicubic sampling at
random. Both use our magnitudes, so that all sides do the same work
(timm's own would stop on Pillow 13, which refuses to posterize to 0 bits).
"""

from collections.abc import Callable
import io
import math
import random
from typing import Any

import numpy as np
from PIL import Image
import tensorflow as tf

from efficientnet_advprop.data import augmentation
from efficientnet_advprop.testing import pillow_operations


def _blend(degenerate: tf.Tensor, image: tf.Tensor, factor: float) -> tf.Tensor:
  start = tf.cast(degenerate, tf.float32)
  mixed = start + factor * (tf.cast(image, tf.float32) - start)
  if not 0 < factor < 1:
    mixed = tf.clip_by_value(mixed, 0.0, 255.0)
  return tf.cast(mixed, tf.uint8)


def _color(image: tf.Tensor, factor: float) -> tf.Tensor:
  grey = tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image))
  return _blend(grey, image, factor)


def _solarize(image: tf.Tensor, threshold: int) -> tf.Tensor:
  # tf.constant refuses a uint8 of 256.
  below = (
    tf.cast(image, tf.int32) < threshold
    if threshold > 255
    else (image < threshold)
  )
  return tf.where(below, image, 255 - image)


def _solarize_add(image: tf.Tensor, addition: int) -> tf.Tensor:
  added = tf.clip_by_value(tf.cast(image, tf.int64) + addition, 0, 255)
  return tf.where(image < 128, tf.cast(added, tf.uint8), image)


def _posterize(image: tf.Tensor, bits: int) -> tf.Tensor:
  shift = tf.constant(8 - bits, tf.uint8)
  return tf.bitwise.left_shift(tf.bitwise.right_shift(image, shift), shift)


def _per_channel(
  image: tf.Tensor, operation: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor:
  return tf.stack([operation(image[..., c]) for c in range(3)], 2)


def _stretch(channel: tf.Tensor) -> tf.Tensor:
  low = tf.cast(tf.reduce_min(channel), tf.float32)
  high = tf.cast(tf.reduce_max(channel), tf.float32)

  def stretched() -> tf.Tensor:
    scale = 255.0 / (high - low)
    values = tf.cast(channel, tf.float32) * scale - low * scale
    return tf.cast(tf.clip_by_value(values, 0.0, 255.0), tf.uint8)

  return tf.cond(high > low, stretched, lambda: channel)


def _equalized(channel: tf.Tensor) -> tf.Tensor:
  values = tf.cast(channel, tf.int32)
  counts = tf.histogram_fixed_width(values, [0, 255], nbins=256)
  used = tf.reshape(tf.gather(counts, tf.where(tf.not_equal(counts, 0))), [-1])
  step = (tf.reduce_sum(used) - used[-1]) // 255

  def spread() -> tf.Tensor:
    table = (tf.cumsum(counts) + step // 2) // step
    table = tf.clip_by_value(tf.concat([[0], table[:-1]], 0), 0, 255)
    return tf.gather(table, values)

  spread_values = tf.cond(tf.equal(step, 0), lambda: values, spread)
  return tf.cast(spread_values, tf.uint8)


def _transform(image: tf.Tensor, transform: Any) -> tf.Tensor:
  """Transforms a marked image and greys what carries no mark."""
  shape = tf.shape(image)
  mark = tf.ones([shape[0], shape[1], 1], image.dtype)
  moved = tf.raw_ops.ImageProjectiveTransformV3(
    images=tf.concat([image, mark], 2)[tf.newaxis],
    transforms=tf.cast(tf.stack(transform), tf.float32)[tf.newaxis],
    output_shape=shape[:2],
    fill_value=0.0,
    interpolation='NEAREST',
    fill_mode='CONSTANT',
  )[0]
  flat = tf.reshape(moved, [-1, 4])
  outside = tf.equal(flat[:, 3], 0)[:, tf.newaxis]
  grey = tf.ones_like(flat) * tf.constant(
    [*pillow_operations.GREY, 1], tf.uint8
  )
  filled = tf.reshape(tf.where(outside, grey, flat), tf.shape(moved))
  return tf.slice(filled, [0, 0, 0], [shape[0], shape[1], 3])


def _rotate(image: tf.Tensor, degrees: tf.Tensor) -> tf.Tensor:
  angle = degrees * 0.017453292519943295
  cosine, sine = tf.cos(angle), tf.sin(angle)
  x = (tf.cast(tf.shape(image)[1], tf.float32) - 1) / 2
  y = (tf.cast(tf.shape(image)[0], tf.float32) - 1) / 2
  c, f = x - cosine * x + sine * y, y - sine * x - cosine * y
  return _transform(image, [cosine, -sine, c, sine, cosine, f, 0.0, 0.0])


OFFICIAL: dict[str, Callable[..., tf.Tensor]] = {
  'AutoContrast': lambda image, _: _per_channel(image, _stretch),
  'Equalize': lambda image, _: _per_channel(image, _equalized),
  'Invert': lambda image, _: 255 - image,
  'Posterize': _posterize,
  'Solarize': _solarize,
  'SolarizeAdd': _solarize_add,
  'Color': _color,
  'Rotate': _rotate,
  'ShearX': lambda i, v: _transform(i, [1.0, v, 0, 0, 1, 0, 0, 0]),
  'ShearY': lambda i, v: _transform(i, [1.0, 0, 0, v, 1, 0, 0, 0]),
  'TranslateY': lambda i, v: _transform(i, [1.0, 0, 0, 0, 1, v, 0, 0]),
}


def _officially_applied(
  image: tf.Tensor, name: str, probability: float, value: float
) -> tf.Tensor:
  if name in augmentation.SIGNED:
    flip = tf.cast(tf.floor(tf.random.uniform([]) + 0.5), tf.bool)
    size = tf.constant(value, tf.float32)
    value = tf.cond(flip, lambda: size, lambda: -size)
  apply = tf.cast(tf.floor(tf.random.uniform([]) + probability), tf.bool)
  operation = OFFICIAL[name]
  return tf.cond(apply, lambda: operation(image, value), lambda: image)


def official_autoaugment(image: tf.Tensor) -> tf.Tensor:
  """AutoAugment v0 in the structure of the official tf.data code.

  Args:
    image: uint8 [height, width, 3].

  Returns:
    uint8 [height, width, 3].
  """
  size = min(image.shape[:2])
  policies = augmentation.AUTOAUGMENT_V0
  chosen = tf.random.uniform([], maxval=len(policies), dtype=tf.int32)

  def applied(policy: Any, image: tf.Tensor) -> tf.Tensor:
    for name, probability, level in policy:
      value = augmentation.autoaugment_magnitude(name, level, size)
      image = _officially_applied(image, name, probability, value)
    return image

  for index, policy in enumerate(policies):
    image = tf.cond(
      tf.equal(index, chosen),
      lambda policy=policy, image=image: applied(policy, image),
      lambda image=image: image,
    )
  return image


def _resized(image: tf.Tensor, size: int) -> tf.Tensor:
  images = image[tf.newaxis]
  return tf.raw_ops.ResizeBicubic(images=images, size=[size, size])[0]


def _centre(encoded: tf.Tensor, shape: tf.Tensor, size: int) -> tf.Tensor:
  short = tf.cast(tf.reduce_min(shape[:2]), tf.float32)
  side = tf.cast(size / (size + 32) * short, tf.int32)
  start = (shape[:2] - side + 1) // 2
  window = tf.concat([start, [side, side]], 0)
  return tf.image.decode_and_crop_jpeg(encoded, window, channels=3)


def official_image(encoded: tf.Tensor, size: int) -> tf.Tensor:
  """Random crop, bicubic resize, flip and AutoAugment, as published.

  Args:
    encoded: a scalar string, JPEG.
    size: height and width of the result in pixels.

  Returns:
    float32 [size, size, 3].
  """
  start, extent, _ = tf.image.sample_distorted_bounding_box(
    tf.image.extract_jpeg_shape(encoded),
    bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
    min_object_covered=0.1,
    aspect_ratio_range=(3 / 4, 4 / 3),
    area_range=(0.08, 1.0),
    max_attempts=10,
    use_image_if_no_bounding_boxes=True,
  )
  window = tf.concat([start[:2], extent[:2]], 0)
  image = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
  shape = tf.image.extract_jpeg_shape(encoded)
  unchanged = tf.reduce_all(tf.equal(shape, tf.shape(image)))
  image = tf.cond(
    unchanged,
    lambda: _resized(_centre(encoded, shape, size), size),
    lambda: _resized(image, size),
  )
  image = tf.ensure_shape(image, [size, size, 3])
  image = tf.image.random_flip_left_right(image)
  image = tf.cast(tf.clip_by_value(image, 0.0, 255.0), tf.uint8)
  return tf.cast(official_autoaugment(image), tf.float32)


def _resampling() -> Image.Resampling:
  return random.choice((Image.Resampling.BILINEAR, Image.Resampling.BICUBIC))


def pillow_autoaugment(image: Image.Image) -> Image.Image:
  """AutoAugment v0 by Pillow."""
  for name, probability, level in random.choice(augmentation.AUTOAUGMENT_V0):
    if random.random() > probability:
      continue
    value = augmentation.autoaugment_magnitude(name, level, min(image.size))
    if name in augmentation.SIGNED and random.random() > 0.5:
      value = -value
    image = pillow_operations.apply(image, name, value, _resampling())
  return image


def _pillow_box(width: int, height: int) -> tuple[int, int, int, int]:
  for _ in range(10):
    area = random.uniform(0.08, 1) * width * height
    ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
    w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    if w <= width and h <= height:
      left, top = random.randint(0, width - w), random.randint(0, height - h)
      return left, top, left + w, top + h
  return 0, 0, width, height


def pillow_image(encoded: bytes, size: int) -> np.ndarray:
  """Random crop, bicubic resize, flip and AutoAugment by Pillow.

  Args:
    encoded: JPEG.
    size: height and width of the result in pixels.

  Returns:
    uint8 [size, size, 3].
  """
  image = Image.open(io.BytesIO(encoded)).convert('RGB')
  image = image.crop(_pillow_box(*image.size))
  image = image.resize((size, size), Image.Resampling.BICUBIC)
  if random.random() < 0.5:
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
  return np.asarray(pillow_autoaugment(image))
