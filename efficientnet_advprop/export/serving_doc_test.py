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


def test_grpc(blocks, server, encoded, tmp_path, monkeypatch):
  (client,) = (block for kind, block in blocks if kind == 'python')
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
