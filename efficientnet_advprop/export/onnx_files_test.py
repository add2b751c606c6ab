import sys

import numpy as np
import pytest

from efficientnet_advprop.base import errors
from efficientnet_advprop.export import onnx_files
from efficientnet_advprop.testing import tiny_onnx

_IMAGES = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)


@pytest.mark.parametrize('batch', ['batch', 1])
@pytest.mark.parametrize('is_channels_first', [False, True])
def test_files_of_others_take_images_as_ours_do(batch, is_channels_first):
  shape = [batch, 3, 8, 8] if is_channels_first else [batch, 8, 8, 3]
  content = tiny_onnx.content(shape, (2, 3) if is_channels_first else (1, 2))
  reader = onnx_files.Reader(content)
  assert reader.input_shape == (None if batch == 'batch' else 1, 8, 8, 3)
  assert reader.output_shape == (None, 5) and not reader.pixels_are_known
  expected = _IMAGES.mean((1, 2)) @ tiny_onnx.WEIGHTS
  np.testing.assert_allclose(reader(_IMAGES), expected, rtol=1e-5, atol=1e-6)


def test_logits_are_preferred_and_other_outputs_go_by_name():
  content = tiny_onnx.content(
    ['batch', 8, 8, 3], outputs=('probabilities', 'logits')
  )
  reader = onnx_files.Reader(content)
  expected = _IMAGES.mean((1, 2)) @ tiny_onnx.WEIGHTS
  for name in (None, 'logits', 'probabilities'):
    np.testing.assert_allclose(reader(_IMAGES, name), expected, rtol=1e-4)


@pytest.mark.parametrize(
  'shape, axes, more_inputs',
  [(['batch', 8, 3], (1,), ()), (['batch', 8, 8, 3], (1, 2), ('bias',))],
)
def test_a_file_that_takes_no_images_is_refused(shape, axes, more_inputs):
  content = tiny_onnx.content(shape, axes, more_inputs=more_inputs)
  with pytest.raises(ValueError, match='not one batch of RGB images'):
    onnx_files.Reader(content)


def test_a_damaged_file_is_refused():
  content = tiny_onnx.content(['batch', 8, 8, 3])
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
