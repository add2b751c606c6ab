"""TFLite files of a network, and running them.

The batch is always one image: a file with a free batch never reaches the fast
kernels (XNNPACK) and is slower by more than half.
"""

from collections.abc import Iterable, Iterator, Sequence
import struct
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf
from tensorflow.lite.tools import flatbuffer_utils

from efficientnet_advprop.base import quiet

# Variants that compute what the network computes. The others must prove their
# accuracy.
EXACT_VARIANTS = ('float32',)

Images = Iterable[np.ndarray]


def file_name(variant: str, variants: Sequence[str]) -> str:
  """Returns the name of a variant's file: `model.tflite` if it is the only one.

  Args:
    variant: one of `variants`.
    variants: all that a version holds.
  """
  return 'model.tflite' if len(variants) == 1 else f'model-{variant}.tflite'


def convert(
  model: tf.keras.Model, variant: str, calibration: Optional[Images] = None
) -> bytes:
  """Converts a network to TFLite.

  Args:
    model: a network without auxiliary domains, in float32.
    variant: `float32`; `float16`, whose weights take half the space; `dynamic`,
      with int8 weights and float activations; `int8`, with int8 weights (a
      scale for each channel) and activations. Inputs and outputs are always
      float32.
    calibration: for `int8`, training images, float32 [size, size, 3] in
      [-1, 1], from which the ranges of the activations are taken.

  Returns:
    The file. Its signature takes `images`, float32 [1, size, size, 3] in
    [-1, 1], and returns `probabilities`, float32 [1, classes].
  """
  converter = create_converter(model)
  if variant != 'float32':
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
  if variant == 'float16':
    converter.target_spec.supported_types = [tf.float16]
  if variant == 'int8':
    converter.representative_dataset = representative(calibration)
  with quiet.quiet_conversion():
    return converter.convert()


def create_converter(model: tf.keras.Model) -> tf.lite.TFLiteConverter:
  """A converter of a network to a file as `convert` returns it.

  NOTE: given the network itself, the converter has Keras trace every layer,
  which takes far longer than the conversion.
  """
  size = model.model_config.image_size
  module = tf.Module()
  module.weights = list(model.variables)

  @tf.function(
    input_signature=[tf.TensorSpec([1, size, size, 3], tf.float32, 'images')]
  )
  def classify(images: tf.Tensor) -> Any:
    logits = model(images, training=False)
    return {'probabilities': tf.nn.softmax(logits)}

  module.classify = classify
  return tf.lite.TFLiteConverter.from_concrete_functions(
    [classify.get_concrete_function()], module
  )


def representative(
  calibration: Optional[Images],
) -> Callable[[], Iterator[list[np.ndarray]]]:
  """Puts each image into a batch of its own, as a converter takes it."""
  images = [] if calibration is None else list(calibration)
  if not images:
    raise ValueError('int8 needs calibration images')
  return lambda: ([image[np.newaxis]] for image in images)


class Reader:
  """Runs a TFLite file, one image at a time."""

  def __init__(self, content: bytes, num_threads: int = 1):
    """Loads the content of a file.

    Raises:
      ValueError: it is cut or no such file.
    """
    # The interpreter would follow offsets out of a damaged file and crash.
    try:
      flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    except (struct.error, IndexError, TypeError, ValueError) as error:
      raise ValueError(f'no whole TFLite file: {error}') from error
    with quiet.quiet_conversion():
      interpreter = tf.lite.Interpreter(
        model_content=content, num_threads=num_threads
      )
      interpreter.allocate_tensors()
    self._interpreter = interpreter
    inputs = interpreter.get_input_details()[0]
    outputs = interpreter.get_output_details()[0]
    self._input, self._output = inputs['index'], outputs['index']
    # [1, size, size, 3] and [1, classes].
    self.input_shape = tuple(int(side) for side in inputs['shape'])
    self.output_shape = tuple(int(side) for side in outputs['shape'])

  def __call__(self, images: np.ndarray) -> np.ndarray:
    """Returns probabilities, float32 [batch, classes], of images in [-1, 1]."""
    return np.concatenate([self._classify(image) for image in images])

  def _classify(self, image: np.ndarray) -> np.ndarray:
    # NOTE: a signature runner would prepare the file again for each image,
    # which takes as long as running it.
    self._interpreter.set_tensor(self._input, image[np.newaxis])
    self._interpreter.invoke()
    return self._interpreter.get_tensor(self._output)
