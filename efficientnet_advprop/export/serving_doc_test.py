"""The messages and clients in docs/ are run as they are written there."""

import base64
import concurrent.futures
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.data import preprocessing
from efficientnet_advprop.export import onnx_files
from efficientnet_advprop.export import saved_model
from efficientnet_advprop.export import tflite
from efficientnet_advprop.testing import pages


def _blocks(page):
  found = pages.blocks(f'docs/{page}')
  return [(block.language, block.text) for block in found if block.language]


def _client(page, word):
  """The Python block of a page that contains a word."""
  (found,) = (b for kind, b in _blocks(page) if kind == 'python' and word in b)
  return found


@pytest.fixture(scope='module')
def blocks():
  return _blocks('serving.md')


@pytest.fixture(scope='module')
def loaded(version):
  return tf.saved_model.load(version)


def _predict(loaded, request):
  """What TF Serving does with a REST request in the row format."""
  rows = request['instances']
  names = rows[0].keys()
  inputs = {
    name: tf.constant([base64.b64decode(row[name]['b64']) for row in rows])
    for name in names
  }
  outputs = loaded.signatures[request['signature_name']](**inputs)
  values = {name: tensor.numpy() for name, tensor in outputs.items()}

  def plain(value):
    if value.dtype == object:
      return [text.decode() for text in value]
    return value.tolist()

  predictions = [
    {name: plain(value[row]) for name, value in values.items()}
    for row in range(len(rows))
  ]
  return {'predictions': predictions}


def _shape(value):
  """A JSON value with its numbers and texts replaced by their types."""
  if isinstance(value, dict):
    return {key: _shape(item) for key, item in value.items()}
  if isinstance(value, list):
    return [_shape(item) for item in value]
  return type(value)


def test_rest(blocks, loaded):
  request, response = (json.loads(b) for kind, b in blocks if kind == 'json')
  actual = _predict(loaded, request)
  assert _shape(actual) == _shape(response)
  names = actual['predictions'][0]['top_classes']
  assert sorted(names) == response['predictions'][0]['top_classes']


@pytest.fixture
def server(loaded):
  """A server that answers as TF Serving does; yields its port."""
  reason = 'tensorflow-serving-api is optional'
  predict_pb2 = pytest.importorskip(
    'tensorflow_serving.apis.predict_pb2', reason=reason
  )
  service = pytest.importorskip(
    'tensorflow_serving.apis.prediction_service_pb2_grpc', reason=reason
  )
  grpc = pytest.importorskip('grpc', reason=reason)
  # TensorFlow and gRPC number their errors alike.
  codes = {code.value[0]: code for code in grpc.StatusCode}

  class Servicer(service.PredictionServiceServicer):
    def Predict(self, request, context):  # noqa: N802
      inputs = {
        name: tf.constant(tf.make_ndarray(value))
        for name, value in request.inputs.items()
      }
      signature = loaded.signatures[request.model_spec.signature_name]
      response = predict_pb2.PredictResponse()
      try:
        outputs = signature(**inputs)
      except tf.errors.OpError as error:
        context.abort(codes[error.error_code], error.message)
      for name, tensor in outputs.items():
        proto = tf.make_tensor_proto(tensor.numpy())
        response.outputs[name].CopyFrom(proto)
      return response

  server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
  service.add_PredictionServiceServicer_to_server(Servicer(), server)
  port = server.add_insecure_port('localhost:0')
  server.start()
  yield port
  server.stop(None)


def test_grpc(server, encoded, tmp_path, monkeypatch):
  client = _client('serving.md', 'grpc')
  (tmp_path / 'picture.jpg').write_bytes(encoded[0])
  monkeypatch.chdir(tmp_path)
  names: dict = {}
  exec(client.replace('8500', str(server)), names)
  assert names['names'][0] == b'blue'
  assert np.all(np.diff(names['shares']) <= 0)

  # An image that does not decode fails its own request and no other.
  request = names['request']
  bad = names['predict_pb2'].PredictRequest()
  bad.CopyFrom(request)
  for content in (b'no image', encoded[0][:200]):
    proto = tf.make_tensor_proto([encoded[0], content])
    bad.inputs['image_bytes'].CopyFrom(proto)
    with pytest.raises(names['grpc'].RpcError) as caught:
      names['stub'].Predict(bad, timeout=60)
    assert caught.value.code() == names['grpc'].StatusCode.INVALID_ARGUMENT
    assert caught.value.details()
  names['stub'].Predict(request, timeout=60)
  names['channel'].close()


def test_python_without_a_server(version, encoded, tmp_path, monkeypatch):
  client = _client('serving.md', 'tf.saved_model.load')
  (tmp_path / 'picture.jpg').write_bytes(encoded[0])
  monkeypatch.chdir(tmp_path)
  (path,) = re.findall(r"load\('(.*)'\)", client)
  names: dict = {}
  exec(client.replace(path, version), names)
  assert names['names'][0] == b'blue'
  assert np.all(np.diff(names['shares']) <= 0)


def test_onnx(config, model_dir, version, network, tmp_path, monkeypatch):
  pytest.importorskip('tf2onnx', reason='an extra')
  pytest.importorskip('onnxruntime', reason='an extra')
  model, _ = saved_model.restored_model(config, model_dir)
  (tmp_path / 'model.onnx').write_bytes(onnx_files.convert(model))
  shutil.copy(pathlib.Path(version, 'labels.txt'), tmp_path)
  monkeypatch.chdir(tmp_path)
  names: dict = {}
  exec(_client('serving.md', 'onnxruntime'), names)
  size = config.model.image_size
  assert names['images'].shape == (2, size, size, 3)
  expected = tf.nn.softmax(network(names['images']))
  np.testing.assert_allclose(names['probabilities'], expected, atol=1e-5)


@pytest.fixture
def tflite_client(config, model_dir, version, encoded, tmp_path, monkeypatch):
  """What the client on the page of TFLite leaves behind."""
  model, _ = saved_model.restored_model(config, model_dir)
  (tmp_path / 'model.tflite').write_bytes(tflite.convert(model, 'float32'))
  shutil.copy(pathlib.Path(version, 'labels.txt'), tmp_path)
  (tmp_path / 'picture.jpg').write_bytes(encoded[0])
  monkeypatch.chdir(tmp_path)
  names: dict = {}
  exec(_client('mobile.md', 'tf.lite.Interpreter'), names)
  return names


def test_the_tflite_client_sees_what_the_evaluation_sees(
  tflite_client, config, encoded, tmp_path
):
  size, padding = config.model.image_size, config.data.eval_crop_padding
  for number, content in enumerate(encoded):
    path = tmp_path / str(number)
    path.write_bytes(content)
    expected = preprocessing.evaluation_image(content, size, padding)
    actual = (tflite_client['prepare'](path, size)[0] + 1) * 127.5
    # In levels. Pillow's JPEG decoder may round another way.
    np.testing.assert_allclose(actual, expected, atol=1.1)


def test_the_tflite_client_answers_as_the_server(
  tflite_client, loaded, encoded
):
  images = tf.constant(encoded[:1])
  outputs = loaded.signatures['encoded_images'](image_bytes=images)
  shares = tflite_client['shares']
  np.testing.assert_allclose(shares, outputs['probabilities'][0], atol=2e-3)
  best = tflite_client['names'][int(np.argmax(shares))]
  assert best == outputs['top_classes'][0, 0].numpy().decode() == 'blue'


def test_the_tflite_client_resizes_as_tensorflow():
  """Enlarged and reduced, without any decoder in between."""
  client = _client('mobile.md', 'def taps').partition('def prepare')[0]
  names: dict = {}
  exec(client, names)
  rng = np.random.default_rng(0)
  for side, size in ((20, 32), (32, 32), (61, 32), (256, 224)):
    image = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
    actual = names['resize'](image, size)
    expected = preprocessing.resize(image, size)
    # TensorFlow looks the kernel up at 1,024 places.
    np.testing.assert_allclose(np.clip(actual, 0, 255), expected, atol=0.25)
