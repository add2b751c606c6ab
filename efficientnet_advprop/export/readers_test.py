"""Programs that share no code with TensorFlow run the exported SavedModel."""

import os
import subprocess
import sys

import numpy as np
import pytest

from efficientnet_advprop.export import sample_images

_TOLERANCE = 1e-5  # Of probabilities: float32 in other orders.
# OpenVINO chooses bfloat16 where the processor has it.
_FLOAT32 = {'INFERENCE_PRECISION_HINT': 'f32'}


@pytest.fixture(scope='module')
def images(config):
  dataset = sample_images.evenly_spaced(config, 'validation', 4)
  return next(dataset.batch(4).as_numpy_iterator())['image']


@pytest.fixture(scope='module')
def expected(network, images):
  logits = network(images, training=False).numpy()
  exponents = np.exp(logits - logits.max(1, keepdims=True))
  return exponents / exponents.sum(1, keepdims=True)


def test_openvino(version, images, expected):
  openvino = pytest.importorskip('openvino', reason='openvino is optional')
  network = openvino.Core().compile_model(version, 'CPU', _FLOAT32)
  outputs = network({'images': images})
  actual = outputs[network.output('probabilities')]
  np.testing.assert_allclose(actual, expected, atol=_TOLERANCE)


def test_onnxruntime(version, images, expected, tmp_path):
  reason = 'tf2onnx and onnxruntime are optional'
  pytest.importorskip('tf2onnx', reason=reason)
  onnxruntime = pytest.importorskip('onnxruntime', reason=reason)
  path = os.fspath(tmp_path / 'model.onnx')
  # In a process of its own: the converter changes TensorFlow's settings.
  command = [sys.executable, '-m', 'tf2onnx.convert', '--saved-model', version]
  command += ['--signature_def', 'serving_default', '--tag', 'serve']
  subprocess.run([*command, '--output', path], check=True)
  session = onnxruntime.InferenceSession(path)
  (actual,) = session.run(['probabilities'], {'images': images})
  np.testing.assert_allclose(actual, expected, atol=_TOLERANCE)
