"""Exported files, called like the network that they were made of.

A SavedModel, a TFLite and an ONNX file then pass through the same evaluation as
a checkpoint. ONNX files of other projects are called in the same way.
"""

import hashlib
import json
import os
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.export import onnx_files
from efficientnet_advprop.export import saved_model
from efficientnet_advprop.export import tflite
from efficientnet_advprop.export import verification

_TFLITE, _ONNX = '.tflite', '.onnx'
_GRAPH = 'saved_model.pb'
_SMALLEST = np.finfo(np.float32).tiny  # The smallest number with a logarithm.

Function = Callable[[tf.Tensor], tf.Tensor]


def is_exported(path: str) -> bool:
  """Whether a path is a TFLite or ONNX file or the folder of a SavedModel."""
  if path.endswith((_TFLITE, _ONNX)):
    return True
  return tf.io.gfile.exists(os.path.join(path, _GRAPH))


class ExportedNetwork:
  """A SavedModel, a TFLite or an ONNX file.

  Attributes:
    path: of the version's folder or the file.
    is_file: whether it is a file, not a version's folder.
    image_size: height and width of its images, in pixels; None if any.
    num_classes: number of its logits.
    class_names: of its logits, from `labels.txt` next to it; None without one.
    pixels_are_known: whether it takes images in [-1, 1], as all files of this
      project do; nothing is known of an ONNX file from elsewhere.
    facts: `step` and `weights` of the network that it was made of, None where
      its report does not say.
    digest: a short hash of the content of its files.
  """

  def __init__(self, path: str):
    """Loads it.

    Raises:
      ExportError: it cannot be read, or takes or returns something else.
    """
    self.path = path
    self.is_file = path.endswith((_TFLITE, _ONNX))
    self.pixels_are_known = True
    load = self._load_saved_model
    if self.is_file:
      load = self._load_onnx if path.endswith(_ONNX) else self._load_tflite
    try:
      self._function, inputs, outputs = load()
    except (tf.errors.OpError, OSError, ValueError, KeyError) as error:
      reason = ' '.join(str(error).split()) or type(error).__name__
      raise errors.ExportError(
        f'{path}: not an exported network ({reason[:200]})'
      ) from error
    self.image_size, self.num_classes = inputs[1], outputs[1]
    folder = os.path.dirname(path) if self.is_file else path
    found = json.loads(_text(folder, verification.REPORT_FILE) or '{}')
    self.facts = {key: found.get(key) for key in ('step', 'weights')}
    names = (_text(folder, saved_model.LABELS_FILE) or '').splitlines()
    self.class_names: Optional[tuple[str, ...]] = None
    if len(names) == self.num_classes:
      self.class_names = tuple(names)
    self.digest = self._digest()

  def _load_saved_model(self) -> tuple[Function, Any, Any]:
    # The object must live as long as its function.
    self._loaded = tf.saved_model.load(self.path)
    signature = self._loaded.signatures[saved_model.FLOAT_SIGNATURE]
    inputs = signature.structured_input_signature[1][saved_model.IMAGES]
    outputs = signature.structured_outputs['logits']

    def logits(images: tf.Tensor) -> tf.Tensor:
      return signature(**{saved_model.IMAGES: images})['logits']

    return logits, inputs.shape, outputs.shape

  def _load_tflite(self) -> tuple[Function, Any, Any]:
    with tf.io.gfile.GFile(self.path, 'rb') as file:
      reader = tflite.Reader(file.read(), num_threads=os.cpu_count() or 1)

    def logits(images: tf.Tensor) -> tf.Tensor:
      found = tf.numpy_function(reader, [images], tf.float32)
      # The softmax of these logits is the file's probabilities.
      found = tf.math.log(tf.maximum(found, _SMALLEST))
      return tf.ensure_shape(found, [images.shape[0], reader.output_shape[1]])

    return logits, reader.input_shape, reader.output_shape

  def _load_onnx(self) -> tuple[Function, Any, Any]:
    with tf.io.gfile.GFile(self.path, 'rb') as file:
      reader = onnx_files.Reader(file.read(), num_threads=os.cpu_count() or 1)
    self.pixels_are_known = reader.pixels_are_known

    def logits(images: tf.Tensor) -> tf.Tensor:
      found = tf.numpy_function(reader, [images], tf.float32)
      return tf.ensure_shape(found, [images.shape[0], reader.output_shape[1]])

    return logits, reader.input_shape, reader.output_shape

  def _digest(self) -> str:
    paths = [self.path]
    if not self.is_file:
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
    """Returns logits, float32 [batch, classes].

    Args:
      images: float32 [batch, size, size, 3], in [-1, 1] if `pixels_are_known`.
      training: False, as a file only knows inference.
      domain: `main`, as a file only has the main norms.
    """
    assert not training and domain == config_lib.MAIN_DOMAIN
    return self._function(images)


def _text(folder: str, name: str) -> Optional[str]:
  path = os.path.join(folder, name)
  if not tf.io.gfile.exists(path):
    return None
  with tf.io.gfile.GFile(path) as file:
    return file.read()
