"""ONNX files of a network, and running them.

The packages tf2onnx and onnxruntime are an extra (requirements-export.txt).
tf2onnx needs TensorFlow 2.15, so Python 3.11 or older; onnxruntime runs a file
everywhere.
"""

import os
import subprocess
import sys
import tempfile
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf

from efficientnet_advprop.base import errors
from efficientnet_advprop.base import quiet

FILE_NAME = 'model.onnx'
IMAGES, LOGITS, PROBABILITIES = 'images', 'logits', 'probabilities'

# The newest operator set that tf2onnx writes by default and tests most.
_OPSET = 17
# Written into a file of ours: its images are [-1, 1], [batch, size, size, 3].
_PIXELS_KEY, _PIXELS = 'pixels', '[-1, 1], RGB, NHWC'
_INSTALL = 'pip install -r requirements-export.txt'


def check_packages() -> None:
  """Raises ExportError, one line, unless a network can be converted here."""
  if sys.version_info >= (3, 12):
    raise errors.ExportError(
      'export.onnx: tf2onnx does not run on Python 3.12 and newer; export on'
      ' Python 3.9 to 3.11, or set export.onnx=false'
    )
  for name in ('tf2onnx', 'onnx', 'onnxruntime'):
    _import(name, 'export.onnx')


def _import(name: str, what: str) -> Any:
  try:
    return __import__(name)
  except ImportError as error:
    raise errors.ExportError(
      f'{what}: needs the package {name} ({error}): {_INSTALL}'
    ) from None


def convert(model: tf.keras.Model) -> bytes:
  """Converts a network to ONNX.

  Args:
    model: a network without auxiliary domains, in float32.

  Returns:
    The file. It maps `images`, float32 [batch, size, size, 3] in [-1, 1], to
    `logits` and `probabilities`, float32 [batch, classes].

  Raises:
    ExportError: a package is missing, or the conversion fails.
  """
  check_packages()
  import onnx  # An extra, which only this function needs.

  size = model.model_config.image_size
  module = tf.Module()
  module.weights = list(model.variables)

  @tf.function(
    input_signature=[tf.TensorSpec([None, size, size, 3], tf.float32, IMAGES)]
  )
  def classify(images: tf.Tensor) -> dict[str, tf.Tensor]:
    logits = model(images, training=False)
    return {LOGITS: logits, PROBABILITIES: tf.nn.softmax(logits)}

  with tempfile.TemporaryDirectory() as folder:
    with quiet.quiet_logs():
      tf.saved_model.save(module, folder, {'serving_default': classify})
    path = os.path.join(folder, FILE_NAME)
    # In a process of its own, as the converter changes TensorFlow's settings.
    command = [sys.executable, '-m', 'tf2onnx.convert']
    command += ['--saved-model', folder, '--signature_def', 'serving_default']
    command += ['--tag', 'serve', '--opset', str(_OPSET), '--output', path]
    environment = {**os.environ, 'CUDA_VISIBLE_DEVICES': ''}
    done = subprocess.run(
      command, capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode or not os.path.exists(path):
      reason = (done.stderr.strip().splitlines() or ['no message'])[-1]
      raise errors.ExportError(f'export.onnx: tf2onnx failed: {reason[:200]}')
    converted = onnx.load(path)
  converted.metadata_props.add(key=_PIXELS_KEY, value=_PIXELS)
  return converted.SerializeToString()


class Reader:
  """Runs an ONNX file.

  Attributes:
    input_shape: [batch, height, width, 3], where None is any size; of files
      that take channels first, in this order all the same.
    output_shape: [batch, classes].
    pixels_are_known: whether the file is of this project, which states its
      pixels.
    gives_probabilities: whether a call returns probabilities, not logits.
  """

  def __init__(self, content: bytes, num_threads: int = 1):
    """Loads the content of a file.

    Raises:
      ExportError: onnxruntime is missing.
      ValueError: the file is damaged, or does not map images to classes.
    """
    runtime = _import('onnxruntime', 'ONNX')
    options = runtime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 4
    try:
      session = runtime.InferenceSession(
        content, options, providers=['CPUExecutionProvider']
      )
    except Exception as error:  # Its errors have no common type.
      raise ValueError(errors.first_line(error)) from None
    (first, *others), outputs = session.get_inputs(), session.get_outputs()
    shape = [side if isinstance(side, int) else None for side in first.shape]
    if others or len(shape) != 4 or 3 not in (shape[1], shape[3]):
      raise ValueError('its input is not one batch of RGB images')
    names = {output.name: output for output in outputs}
    output = names.get(LOGITS) or outputs[0]
    if len(output.shape) != 2 or not isinstance(output.shape[1], int):
      raise ValueError('its first output is not [batch, classes]')
    metadata = session.get_modelmeta().custom_metadata_map
    self._session, self._input, self._output = session, first.name, output.name
    self._channels_first = shape[3] != 3
    if self._channels_first:
      shape = [shape[0], shape[2], shape[3], shape[1]]
    self.input_shape = tuple(shape)
    self.output_shape = (None, output.shape[1])
    self.pixels_are_known = metadata.get(_PIXELS_KEY) == _PIXELS
    self._has_fixed_batch = shape[0] is not None

  def __call__(
    self, images: np.ndarray, output: Optional[str] = None
  ) -> np.ndarray:
    """Runs the file.

    Args:
      images: float32 [batch, height, width, 3], as the file takes them.
      output: the name of the output; None for logits, or the first.

    Returns:
      float32 [batch, classes].
    """
    if self._channels_first:
      images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    run: Callable[..., Any] = self._session.run
    names = [output or self._output]
    if not self._has_fixed_batch:
      return run(names, {self._input: images})[0].astype(np.float32)
    parts = [run(names, {self._input: image[None]})[0] for image in images]
    return np.concatenate(parts).astype(np.float32)
