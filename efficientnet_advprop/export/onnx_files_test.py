import sys

import numpy as np
import pytest

from efficientnet_advprop.base import errors
from efficientnet_advprop.export import onnx_files

_WEIGHTS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
_IMAGES = np.random.default_rng(1).normal(size=(4, 8, 8, 3)).astype(np.float32)


def _file(shape, axes=(1, 2), outputs=('y',), more_inputs=()):
  """A network of one layer as a file, not yet serialized.

  Args:
    shape: of the images.
    axes: height and width among them.
    outputs: names of outputs, all of them the same values.
    more_inputs: names of inputs that are added to the logits.
  """
  onnx = pytest.importorskip('onnx', reason='an extra')
  pytest.importorskip('onnxruntime', reason='an extra')
  helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
  batch = shape[0]
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
    [helper.make_tensor_value_info(n, float32, [batch, 5]) for n in outputs],
    [onnx.numpy_helper.from_array(_WEIGHTS, 'w')],
  )
  opset = helper.make_opsetid('', 13)
  return helper.make_model(graph, opset_imports=[opset], ir_version=8)


@pytest.mark.parametrize('batch', ['batch', 1])
@pytest.mark.parametrize('is_channels_first', [False, True])
def test_files_of_others_take_images_as_ours_do(batch, is_channels_first):
  shape = [batch, 3, 8, 8] if is_channels_first else [batch, 8, 8, 3]
  content = _file(shape, (2, 3) if is_channels_first else (1, 2))
  reader = onnx_files.Reader(content.SerializeToString())
  assert reader.input_shape == (None if batch == 'batch' else 1, 8, 8, 3)
  assert reader.output_shape == (None, 5) and not reader.pixels_are_known
  expected = _IMAGES.mean((1, 2)) @ _WEIGHTS
  np.testing.assert_allclose(reader(_IMAGES), expected, rtol=1e-5, atol=1e-6)


def test_logits_are_preferred_and_other_outputs_go_by_name():
  content = _file(['batch', 8, 8, 3], outputs=('probabilities', 'logits'))
  reader = onnx_files.Reader(content.SerializeToString())
  expected = _IMAGES.mean((1, 2)) @ _WEIGHTS
  for name in (None, 'logits', 'probabilities'):
    np.testing.assert_allclose(reader(_IMAGES, name), expected, rtol=1e-4)


@pytest.mark.parametrize(
  'shape, axes, more_inputs',
  [(['batch', 8, 3], (1,), ()), (['batch', 8, 8, 3], (1, 2), ('bias',))],
)
def test_a_file_that_takes_no_images_is_refused(shape, axes, more_inputs):
  content = _file(shape, axes, more_inputs=more_inputs).SerializeToString()
  with pytest.raises(ValueError, match='not one batch of RGB images'):
    onnx_files.Reader(content)


def test_a_damaged_file_is_refused():
  content = _file(['batch', 8, 8, 3]).SerializeToString()
  with pytest.raises(ValueError) as caught:
    onnx_files.Reader(content[:-20])
  assert '\n' not in str(caught.value)


def test_a_missing_package_is_one_line(monkeypatch):
  monkeypatch.setitem(sys.modules, 'onnxruntime', None)
  with pytest.raises(errors.ExportError, match='ONNX: needs the package onnxr'):
    onnx_files.Reader(b'')


def test_new_pythons_cannot_convert(monkeypatch):
  monkeypatch.setattr(sys, 'version_info', (3, 12, 0))
  with pytest.raises(errors.ExportError, match=r'3\.12 and newer; export on'):
    onnx_files.check_packages()
