"""The messages in docs/serving.md are replayed as they stand there."""

import base64
import concurrent.futures
import json
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

_ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module')
def blocks():
  text = (_ROOT / 'docs' / 'serving.md').read_text()
  return re.findall(r'```(\w+)\n(.*?)```', text, re.DOTALL)


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


def test_grpc(blocks, loaded, encoded, tmp_path, monkeypatch):
  reason = 'tensorflow-serving-api is optional'
  predict_pb2 = pytest.importorskip(
    'tensorflow_serving.apis.predict_pb2', reason=reason
  )
  service = pytest.importorskip(
    'tensorflow_serving.apis.prediction_service_pb2_grpc', reason=reason
  )
  grpc = pytest.importorskip('grpc', reason=reason)

  class Servicer(service.PredictionServiceServicer):
    def Predict(self, request, context):  # noqa: N802
      inputs = {
        name: tf.constant(tf.make_ndarray(value))
        for name, value in request.inputs.items()
      }
      signature = loaded.signatures[request.model_spec.signature_name]
      response = predict_pb2.PredictResponse()
      for name, tensor in signature(**inputs).items():
        proto = tf.make_tensor_proto(tensor.numpy())
        response.outputs[name].CopyFrom(proto)
      return response

  server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
  service.add_PredictionServiceServicer_to_server(Servicer(), server)
  port = server.add_insecure_port('localhost:0')
  server.start()
  (client,) = (block for kind, block in blocks if kind == 'python')
  (tmp_path / 'picture.jpg').write_bytes(encoded[0])
  monkeypatch.chdir(tmp_path)
  names: dict = {}
  try:
    exec(client.replace('8500', str(port)), names)
  finally:
    server.stop(None)
    if 'channel' in names:
      names['channel'].close()
  assert names['names'][0] == b'blue'
  assert np.all(np.diff(names['shares']) <= 0)
