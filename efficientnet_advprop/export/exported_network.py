"""Exported files, called as the network that they were made of.

So that the evaluator runs a checkpoint, a SavedModel and a TFLite file alike.
"""

import hashlib
import json
import os
from typing import Any

import numpy as np
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.export import saved_model
from efficientnet_advprop.export import tflite
from efficientnet_advprop.export import verification

_SUFFIX = '.tflite'
_GRAPH = 'saved_model.pb'
_SMALLEST = np.finfo(np.float32).tiny  # Whose logarithm is a number.


def is_exported(path: str) -> bool:
  """Whether a path is a TFLite file or the folder of a SavedModel."""
  if path.endswith(_SUFFIX):
    return True
  return tf.io.gfile.exists(os.path.join(path, _GRAPH))


class ExportedNetwork:
  """A SavedModel or a TFLite file.

  Attributes:
    path: of the version's folder or the file.
    image_size: height and width of its images, in pixels.
    num_classes: number of its logits.
    facts: `step` and `weights` of the network that it was made of, None where
      its report does not say.
    digest: names the content of its files.
  """

  def __init__(self, path: str):
    """Loads it.

    Raises:
      ExportError: it cannot be read, or takes or gives something else.
    """
    self.path = path
    self.is_tflite = path.endswith(_SUFFIX)
    try:
      load = self._load_tflite if self.is_tflite else self._load_saved_model
      self._function, inputs, outputs = load()
    except (tf.errors.OpError, OSError, ValueError, KeyError) as error:
      reason = ' '.join(str(error).split()) or type(error).__name__
      raise errors.ExportError(
        f'{path}: not an exported network ({reason[:200]})'
      ) from error
    self.image_size, self.num_classes = inputs[1], outputs[1]
    folder = os.path.dirname(path) if self.is_tflite else path
    report = os.path.join(folder, verification.REPORT_FILE)
    found: dict[str, Any] = {}
    if tf.io.gfile.exists(report):
      with tf.io.gfile.GFile(report) as file:
        found = json.loads(file.read())
    self.facts = {key: found.get(key) for key in ('step', 'weights')}
    self.digest = self._digest()

  def _load_saved_model(self) -> Any:
    # The object must live as long as its function.
    self._loaded = tf.saved_model.load(self.path)
    signature = self._loaded.signatures[saved_model.FLOAT_SIGNATURE]
    inputs = signature.structured_input_signature[1][saved_model.IMAGES]
    outputs = signature.structured_outputs['logits']

    def logits(images: tf.Tensor) -> tf.Tensor:
      return signature(**{saved_model.IMAGES: images})['logits']

    return logits, inputs.shape, outputs.shape

  def _load_tflite(self) -> Any:
    with tf.io.gfile.GFile(self.path, 'rb') as file:
      reader = tflite.Reader(file.read(), num_threads=os.cpu_count() or 1)

    def logits(images: tf.Tensor) -> tf.Tensor:
      found = tf.numpy_function(reader, [images], tf.float32)
      # Their softmax gives the probabilities again.
      found = tf.math.log(tf.maximum(found, _SMALLEST))
      return tf.ensure_shape(found, [images.shape[0], reader.output_shape[1]])

    return logits, reader.input_shape, reader.output_shape

  def _digest(self) -> str:
    paths = [self.path]
    if not self.is_tflite:
      variables = os.path.join(self.path, 'variables')
      paths = [os.path.join(self.path, _GRAPH)]
      paths += [
        os.path.join(variables, name)
        for name in sorted(tf.io.gfile.listdir(variables))
      ]
    state = hashlib.sha256()
    for path in paths:
      with tf.io.gfile.GFile(path, 'rb') as file:
        state.update(file.read())
    return state.hexdigest()[:16]

  def __call__(
    self,
    images: tf.Tensor,
    training: bool = False,
    domain: str = config_lib.MAIN_DOMAIN,
  ) -> tf.Tensor:
    """Logits, float32 [batch, classes], of images in [-1, 1].

    It has the main norms alone, and knows inference alone.
    """
    assert not training and domain == config_lib.MAIN_DOMAIN
    return self._function(images)
