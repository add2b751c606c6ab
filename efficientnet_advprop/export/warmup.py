"""Warm-up requests that TF Serving replays before it serves a version.

They are a TFRecord of `PredictionLog` messages in `assets.extra`. The messages
are encoded here, because the package with their classes,
tensorflow-serving-api, is not otherwise needed. Their fields (of predict.proto
and prediction_log.proto of TF Serving) are all of the wire type "length and
bytes".
"""

from collections.abc import Mapping, Sequence
import os
from typing import Any

import tensorflow as tf

_PATH = 'assets.extra/tf_serving_warmup_requests'

# Field numbers.
_LOG_PREDICT = 6  # PredictionLog.predict_log
_PREDICT_REQUEST = 1  # PredictLog.request
_REQUEST_SPEC, _REQUEST_INPUTS = 1, 2  # PredictRequest
_SPEC_NAME, _SPEC_SIGNATURE = 1, 3  # ModelSpec
_ENTRY_KEY, _ENTRY_VALUE = 1, 2  # Of a map<string, TensorProto>.

# A signature and its inputs by name, each from `tf.make_tensor_proto`.
Request = tuple[str, Mapping[str, Any]]


def _varint(number: int) -> bytes:
  encoded = bytearray()
  while number > 127:
    encoded.append(number & 127 | 128)
    number >>= 7
  return bytes(encoded + bytes([number]))


def _field(number: int, payload: bytes) -> bytes:
  """A field with its tag; wire type 2 is a length and that number of bytes."""
  return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def predict_request(
  model_name: str,
  signature: str,
  inputs: Mapping[str, Any],
) -> bytes:
  """A serialized `tensorflow.serving.PredictRequest`.

  Args:
    model_name: under which the server knows the model.
    signature: whose inputs these are.
    inputs: `TensorProto`s by the names of the signature's inputs.
  """
  spec = _field(_SPEC_NAME, model_name.encode())
  spec += _field(_SPEC_SIGNATURE, signature.encode())
  entries = [
    _field(_ENTRY_KEY, name.encode())
    + _field(_ENTRY_VALUE, tensor.SerializeToString())
    for name, tensor in inputs.items()
  ]
  return _field(_REQUEST_SPEC, spec) + b''.join(
    _field(_REQUEST_INPUTS, entry) for entry in entries
  )


def write(directory: str, model_name: str, requests: Sequence[Request]) -> None:
  """Writes warm-up requests into the folder of a SavedModel.

  Args:
    directory: of the SavedModel.
    model_name: for the requests; the server does not compare it.
    requests: what to ask; the server reads at most 1000.
  """
  path = os.path.join(directory, _PATH)
  tf.io.gfile.makedirs(os.path.dirname(path))
  with tf.io.TFRecordWriter(path) as writer:
    for signature, inputs in requests:
      request = predict_request(model_name, signature, inputs)
      predict_log = _field(_PREDICT_REQUEST, request)
      writer.write(_field(_LOG_PREDICT, predict_log))
