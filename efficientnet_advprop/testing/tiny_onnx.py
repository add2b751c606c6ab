"""Writes ONNX files of a network of one layer, as others might."""

from collections.abc import Sequence
from typing import Union

import numpy as np
import pytest

WEIGHTS = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)


def content(
  shape: Sequence[Union[int, str]],
  axes: Sequence[int] = (1, 2),
  outputs: Sequence[str] = ('y',),
  more_inputs: Sequence[str] = (),
) -> bytes:
  """Returns a file whose logits are mean colors times `WEIGHTS`.

  The test is skipped where the packages that it needs are missing.

  Args:
    shape: of the images; a string is a side of any size.
    axes: height and width among them.
    outputs: names of outputs, each of which is the logits.
    more_inputs: names of inputs that are added to the logits.
  """
  onnx = pytest.importorskip('onnx', reason='an extra')
  pytest.importorskip('onnxruntime', reason='an extra')
  helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
  nodes = [
    helper.make_node('ReduceMean', ['x'], ['mean'], axes=axes, keepdims=0),
    helper.make_node('MatMul', ['mean', 'w'], ['logits_0']),
  ]
  for index, name in enumerate(more_inputs):
    inputs = [f'logits_{index}', name]
    nodes.append(helper.make_node('Add', inputs, [f'logits_{index + 1}']))
  last = f'logits_{len(more_inputs)}'
  nodes += [helper.make_node('Identity', [last], [name]) for name in outputs]
  graph = helper.make_graph(
    nodes,
    'small',
    [
      helper.make_tensor_value_info('x', float32, shape),
      *(helper.make_tensor_value_info(n, float32, [5]) for n in more_inputs),
    ],
    [helper.make_tensor_value_info(n, float32, [shape[0], 5]) for n in outputs],
    [onnx.numpy_helper.from_array(WEIGHTS, 'w')],
  )
  opset = helper.make_opsetid('', 13)
  model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
  return model.SerializeToString()
