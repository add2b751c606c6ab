import os

from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message_factory
import pytest
import tensorflow as tf

from efficientnet_advprop.export import warmup

# The published fields (name, number, type of message) that a warm-up uses.
_MESSAGES = {
  'ModelSpec': [('name', 1, None), ('signature_name', 3, None)],
  'Entry': [('key', 1, None), ('value', 2, '.tensorflow.TensorProto')],
  'PredictRequest': [
    ('model_spec', 1, '.t.ModelSpec'),
    ('inputs', 2, '.t.Entry'),
  ],
  'PredictLog': [('request', 1, '.t.PredictRequest')],
  'PredictionLog': [('predict_log', 6, '.t.PredictLog')],
}


def _message_class(name):
  """The class of a message that the protobuf library itself parses."""
  pool = descriptor_pool.Default()
  try:
    pool.FindFileByName('t.proto')
  except KeyError:
    file = descriptor_pb2.FileDescriptorProto(name='t.proto', package='t')
    file.dependency.append('tensorflow/core/framework/tensor.proto')
    for message_name, fields in _MESSAGES.items():
      message = file.message_type.add(name=message_name)
      for field_name, number, type_name in fields:
        field = message.field.add(name=field_name, number=number)
        field.label = field.LABEL_REPEATED if number == 2 else 1
        field.type = field.TYPE_MESSAGE if type_name else field.TYPE_STRING
        if type_name:
          field.type_name = type_name
        if type_name == '.tensorflow.TensorProto':
          field.label = field.LABEL_OPTIONAL
    pool.Add(file)
  descriptor = pool.FindMessageTypeByName(f't.{name}')
  if hasattr(message_factory, 'GetMessageClass'):
    return message_factory.GetMessageClass(descriptor)
  return message_factory.MessageFactory(pool).GetPrototype(descriptor)  # 3.20.


def _requests(version):
  path = os.path.join(version, 'assets.extra', 'tf_serving_warmup_requests')
  for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
    log = _message_class('PredictionLog').FromString(record)
    assert log.SerializeToString() == record  # No other fields.
    yield record, log.predict_log.request


def test_warmup_runs_each_signature(version):
  loaded = tf.saved_model.load(version)
  seen = []
  for _, request in _requests(version):
    inputs = {e.key: tf.make_ndarray(e.value) for e in request.inputs}
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    signature = request.model_spec.signature_name
    outputs = loaded.signatures[signature](**tensors)
    assert outputs['probabilities'].shape == [1, 3]
    assert request.model_spec.name == 'efficientnet-b0'
    seen.append(signature)
  assert sorted(seen) == ['encoded_images', 'serving_default']


def test_warmup_is_what_the_serving_api_writes(version):
  reason = 'tensorflow-serving-api is optional'
  log_pb2 = pytest.importorskip(
    'tensorflow_serving.apis.prediction_log_pb2', reason=reason
  )
  for record, request in _requests(version):
    log = log_pb2.PredictionLog.FromString(record)
    parsed = log.predict_log.request
    assert parsed.model_spec.signature_name == request.model_spec.signature_name
    assert set(parsed.inputs) == {entry.key for entry in request.inputs}
    assert log.SerializeToString(deterministic=True) == record


def test_long_fields():
  content = b'x' * 300  # Its length takes two bytes.
  tensor = tf.make_tensor_proto([content])
  request = warmup.predict_request('name', 'signature', {'key': tensor})
  parsed = _message_class('PredictRequest').FromString(request)
  assert tf.make_ndarray(parsed.inputs[0].value)[0] == content
