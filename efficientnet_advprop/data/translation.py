"""What tensorflow-addons does for the input, and the kernel beneath it.

tensorflow-addons can be imported with TensorFlow up to 2.15. Elsewhere the
TensorFlow kernel that it wraps is called directly; results are the same.
"""

import functools
import types
from typing import Optional
import warnings

import tensorflow as tf


@functools.lru_cache(maxsize=1)
def image_module() -> Optional[types.ModuleType]:
  """tensorflow_addons.image, imported on first use; None where it fails."""
  with warnings.catch_warnings():
    warnings.filterwarnings(
      'ignore', r'\s*TensorFlow Addons \(TFA\) has ended development'
    )
    try:
      import tensorflow_addons as tfa
    except (ImportError, AttributeError):  # Of Keras modules that moved.
      return None
  return tfa.image


def _kernel(image: tf.Tensor, transform: tf.Tensor, fill: int) -> tf.Tensor:
  return tf.raw_ops.ImageProjectiveTransformV3(
    images=image[tf.newaxis],
    transforms=transform[tf.newaxis],
    output_shape=tf.shape(image)[:2],
    fill_value=float(fill),
    interpolation='NEAREST',
    fill_mode='CONSTANT',
  )[0]


def translate(
  image: tf.Tensor, x: tf.Tensor, y: tf.Tensor, fill: int
) -> tf.Tensor:
  """Moves an image left by `x` and up by `y` pixels.

  Args:
    image: uint8 [height, width, channels].
    x: a scalar.
    y: a scalar.
    fill: the value of pixels from outside of the image, 0-255.

  Returns:
    uint8 [height, width, channels].
  """
  x, y = tf.cast(x, tf.float32), tf.cast(y, tf.float32)
  transform = tf.stack([1.0, 0.0, x, 0.0, 1.0, y, 0.0, 0.0])
  module = image_module()
  if module is None:
    return _kernel(image, transform, fill)
  return module.transform(image, transform, fill_value=float(fill))
