"""From encoded bytes to an image of the network's size.

Crops follow the official EfficientNet code: Inception's random crop for
training, the centre for evaluation, then a bicubic resize. JPEGs are decoded
only inside the crop. All of it is TensorFlow without Python state, so that an
exported network can carry it.

The resize is TensorFlow's legacy one, which the official checkpoints were
trained with: output pixel i samples the input at i * scale (not at pixel
centres), by Keys' kernel with a = -0.75 over 4 x 4 pixels, without
anti-aliasing. `tf.image.resize` (pixel centres, a = -0.5) takes the same time
within the noise, so fidelity decides.
"""

from collections.abc import Callable
import functools
from typing import Optional

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import randomness
from efficientnet_advprop.data import augmentation
from efficientnet_advprop.data import orientation

# The official crop: shape and tries. It covers at least a tenth of the image,
# because the official code calls the whole image the object to be covered, so
# that smaller values of data.min_crop_area than 0.1 act like 0.1.
_ASPECT_RATIOS = (3 / 4, 4 / 3)
_MIN_COVERED = 0.1
_CROP_ATTEMPTS = 10


# A branch of tf.cond that is not taken costs the time to pass by each of its
# operations, unless they are a function of their own.
_rare = tf.function(
  autograph=False, experimental_attributes={'_noinline': True}
)


def image_shape(encoded: tf.Tensor) -> tf.Tensor:
  """Height, width and channels of an encoded image, int32 [3].

  They are those of the upright picture where a JPEG's Exif data says how to
  turn it. JPEG and PNG are not decoded for it. Fails if `encoded` is no image.
  """
  return tf.cond(
    orientation.is_plain_jpeg(encoded),
    lambda: tf.io.extract_jpeg_shape(encoded),
    lambda: _rare_shape(encoded),
  )


@_rare
def _rare_shape(encoded: tf.Tensor) -> tf.Tensor:
  """`image_shape` of anything but a plain JPEG."""

  def of_jpeg() -> tf.Tensor:
    stored = tf.io.extract_jpeg_shape(encoded)
    turned = orientation.of_jpeg(encoded)
    return orientation.upright_shape(stored, turned)

  def of_png() -> tf.Tensor:
    sides = tf.strings.substr(encoded, 16, 8)
    sides = tf.io.decode_raw(sides, tf.int32, little_endian=False)
    return tf.concat([tf.ensure_shape(sides[::-1], [2]), [3]], 0)

  def of_other() -> tf.Tensor:
    return tf.shape(tf.io.decode_image(encoded, 3, expand_animations=False))

  is_png = tf.strings.substr(encoded, 0, 4) == b'\x89PNG'
  is_png &= tf.strings.length(encoded) >= 24
  return tf.cond(
    tf.io.is_jpeg(encoded),
    of_jpeg,
    lambda: tf.cond(is_png, of_png, of_other),
  )


def decode_and_crop(encoded: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
  """Decodes the part `box` of an image.

  A JPEG whose Exif data says how to turn it comes out upright.

  Args:
    encoded: a scalar string: JPEG (grey, RGB or CMYK), PNG, GIF or BMP.
    box: int32 [4]: top, left, height, width in pixels, inside the upright
      picture.

  Returns:
    uint8 [height, width, 3], RGB.
  """
  image = tf.cond(
    orientation.is_plain_jpeg(encoded),
    lambda: tf.io.decode_and_crop_jpeg(encoded, box, channels=3),
    lambda: _decode_rare(encoded, box),
  )
  return tf.ensure_shape(image, [None, None, 3])


@_rare
def _decode_rare(encoded: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
  """`decode_and_crop` of anything but a plain JPEG."""

  def of_jpeg() -> tf.Tensor:
    turned = orientation.of_jpeg(encoded)
    stored = tf.io.extract_jpeg_shape(encoded)
    upright = orientation.upright_shape(stored, turned)
    image = tf.io.decode_and_crop_jpeg(
      encoded, orientation.stored_box(box, upright, turned), channels=3
    )
    return orientation.turn(image, turned)

  def of_other() -> tf.Tensor:
    image = tf.io.decode_image(encoded, 3, expand_animations=False)
    end = box[:2] + box[2:]
    return image[box[0] : end[0], box[1] : end[1]]

  return tf.cond(tf.io.is_jpeg(encoded), of_jpeg, of_other)


def _bicubic(image: tf.Tensor, size: int) -> tf.Tensor:
  """Resizes by the legacy bicubic kernel; float32, which overshoots."""
  resized = tf.raw_ops.ResizeBicubic(
    images=image[tf.newaxis],
    size=[size, size],
    align_corners=False,
    half_pixel_centers=False,
  )
  return tf.squeeze(resized, 0)


def to_levels(values: tf.Tensor) -> tf.Tensor:
  """Clips values to [0, 255] and rounds them, half to even.

  Args:
    values: float32.

  Returns:
    uint8, the same shape.
  """
  # One pass through memory instead of four. The raw operation, because
  # tf.quantization.quantize warns of a function of its own.
  levels = tf.raw_ops.QuantizeV2(
    input=values,
    min_range=0.0,
    max_range=255.0,
    T=tf.quint8,
    mode='SCALED',
    round_mode='HALF_TO_EVEN',
    ensure_minimum_range=0.01,
  )
  return tf.bitcast(levels.output, tf.uint8)


def resize(image: tf.Tensor, size: int) -> tf.Tensor:
  """Resizes by the legacy bicubic kernel (see above) and clips the overshoot.

  Args:
    image: [height, width, 3], any numeric type, in [0, 255].
    size: height and width of the result in pixels.

  Returns:
    float32 [size, size, 3] in [0, 255].
  """
  return tf.clip_by_value(_bicubic(image, size), 0.0, 255.0)


def center_box(shape: tf.Tensor, image_size: int, padding: int) -> tf.Tensor:
  """Returns the evaluation crop: a centred square.

  NOTE: the padding (`data.eval_crop_padding`) is 32 at every size, as in the
  code of the checkpoints and in timm. The head of the official code has
  round(image_size * (1 / 0.875 - 1)) since, which is 34 to 96 for B1 to B8.

  Args:
    shape: int32 [2 or 3]: height, width.
    image_size: the network's input size in pixels.
    padding: the square's side is image_size / (image_size + padding) of the
      image's short side.

  Returns:
    int32 [4]: top, left, height, width.
  """
  short = tf.cast(tf.minimum(shape[0], shape[1]), tf.float32)
  side = tf.cast(image_size / (image_size + padding) * short, tf.int32)
  start = (shape[:2] - side + 1) // 2
  return tf.stack([start[0], start[1], side, side])


def random_box(
  shape: tf.Tensor,
  seed: tf.Tensor,
  image_size: int,
  config: config_lib.DataConfig,
) -> tf.Tensor:
  """The Inception crop of the official training code.

  A box of random shape and area; the centre crop if ten tries found none.

  Args:
    shape: int32 [3]: height, width, channels.
    seed: int32 [2].
    image_size: the network's input size in pixels.
    config: `min_crop_area` and `eval_crop_padding` are read.

  Returns:
    int32 [4]: top, left, height, width.
  """
  start, size, _ = tf.image.stateless_sample_distorted_bounding_box(
    shape,
    bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
    seed=seed,
    min_object_covered=_MIN_COVERED,
    aspect_ratio_range=_ASPECT_RATIOS,
    area_range=(config.min_crop_area, 1.0),
    max_attempts=_CROP_ATTEMPTS,
  )
  center = center_box(shape, image_size, config.eval_crop_padding)
  is_whole = tf.reduce_all(size[:2] == shape[:2])
  return tf.where(is_whole, center, tf.concat([start[:2], size[:2]], 0))


def training_image(
  encoded: tf.Tensor,
  shape: tf.Tensor,
  seed: tf.Tensor,
  image_size: int,
  config: config_lib.DataConfig,
) -> tf.Tensor:
  """Random crop, resize and flip, before any augmentation.

  Args:
    encoded: a scalar string.
    shape: `image_shape(encoded)`.
    seed: int32 [2], the example's.
    image_size: in pixels.
    config: the crop.

  Returns:
    uint8 [image_size, image_size, 3].
  """
  crop = functools.partial(decode_and_crop, encoded)
  return training_crop(crop, shape, seed, image_size, config)


def training_crop(
  crop: Callable[[tf.Tensor], tf.Tensor],
  shape: tf.Tensor,
  seed: tf.Tensor,
  image_size: int,
  config: config_lib.DataConfig,
) -> tf.Tensor:
  """Does what `training_image` does to an image that `crop` reads.

  Args:
    crop: returns a box of the image, as `decode_and_crop` does.
    shape: int32 [3]: height, width, channels of the image.
    seed: int32 [2], the example's.
    image_size: in pixels.
    config: the crop.

  Returns:
    uint8 [image_size, image_size, 3].
  """
  crop_seed = randomness.fold(seed, randomness.CROP)
  image = _bicubic(
    crop(random_box(shape, crop_seed, image_size, config)), image_size
  )
  # NOTE: rounded; the official code truncates, darkening by half a level.
  image = to_levels(image)
  flip_seed = randomness.fold(seed, randomness.FLIP)
  draw = tf.random.stateless_uniform([], flip_seed, alg='philox')
  image = tf.cond(draw < 0.5, lambda: tf.reverse(image, [1]), lambda: image)
  return tf.ensure_shape(image, [image_size, image_size, 3])


def whole_image(
  encoded: tf.Tensor, shape: tf.Tensor, short_side: Optional[int] = None
) -> tf.Tensor:
  """Decodes an image, and reduces one that is larger than needed.

  Args:
    encoded: a scalar string: JPEG, PNG, GIF or BMP.
    shape: `image_shape(encoded)`.
    short_side: an image whose short side has more pixels is reduced to this
      many, each the mean of the area that it covers, rounded. None: no image
      is reduced.

  Returns:
    uint8 [height, width, 3].
  """
  image = decode_and_crop(encoded, tf.concat([[0, 0], shape[:2]], 0))
  if short_side is None:
    return image
  sides = shape[:2]
  short = tf.reduce_min(sides)

  def reduced() -> tf.Tensor:
    # Rounded in whole numbers; no side becomes shorter than short_side.
    smaller = (2 * sides * short_side + short) // (2 * short)
    return to_levels(tf.image.resize(image, smaller, 'area'))

  result = tf.cond(short > short_side, reduced, lambda: image)
  return tf.ensure_shape(result, [None, None, 3])


def augment(
  image: tf.Tensor, seed: tf.Tensor, config: config_lib.DataConfig
) -> tf.Tensor:
  """Applies the policy of `config` to a uint8 image, by the example's seed."""
  seed = randomness.fold(seed, randomness.AUGMENTATION)
  return augmentation.augment(image, seed, config)


def evaluation_image(
  encoded: tf.Tensor,
  image_size: int,
  padding: int,
  shape: Optional[tf.Tensor] = None,
) -> tf.Tensor:
  """Centre crop and resize.

  Args:
    encoded: a scalar string: JPEG, PNG, GIF or BMP.
    image_size: in pixels.
    padding: see `center_box`.
    shape: `image_shape(encoded)`, if known.

  Returns:
    float32 [image_size, image_size, 3] in [0, 255]; see `normalize`.
  """
  shape = image_shape(encoded) if shape is None else shape
  box = center_box(shape, image_size, padding)
  return resize(decode_and_crop(encoded, box), image_size)


def stored_image(encoded: tf.Tensor, side: int) -> tf.Tensor:
  """An image as it is stored, without crop or resize.

  Args:
    encoded: a scalar string: JPEG, PNG, GIF or BMP.
    side: its height and width in pixels.

  Returns:
    float32 [side, side, 3] in [0, 255]; see `normalize`.
  """
  image = decode_and_crop(encoded, tf.constant([0, 0, side, side]))
  return tf.cast(tf.ensure_shape(image, [side, side, 3]), tf.float32)


def normalize(images: tf.Tensor) -> tf.Tensor:
  """Maps pixel values from [0, 255], any type, to float32 in [-1, 1]."""
  return tf.cast(images, tf.float32) * (2.0 / 255.0) - 1.0
