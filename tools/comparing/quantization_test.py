import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import quiet
from efficientnet_advprop.export import tflite
from efficientnet_advprop.models import factory
from efficientnet_advprop.testing import tiny_runs
from tools.comparing import quantization


@pytest.fixture(scope='module')
def images():
  rng = np.random.default_rng(0)
  return list(rng.uniform(-1, 1, [4, 32, 32, 3]).astype(np.float32))


@pytest.fixture(scope='module')
def files(images):
  model = {**tiny_runs.EFFICIENTNET, 'image_size': 32}
  config = config_lib.from_dict({'model': model})
  model = factory.create_model(config.model, 5, ())
  return quantization.files(model, images, float_layers=3)


def _kinds(content):
  with quiet.quiet_logs():
    interpreter = tf.lite.Interpreter(model_content=content)
  return [
    np.dtype(details['dtype']).name
    for details in interpreter.get_tensor_details()
  ]


# Nine conversions take the better part of a minute.
@pytest.mark.slow
def test_every_way_keeps_in_float_what_it_says(files):
  floats = {name: _kinds(file).count('float32') for name, file in files.items()}
  assert floats['int8'] == floats['one scale'] == 2  # Input and output.
  assert 2 < floats['float classifier'] < floats['float worst layers']
  assert floats['float worst layers'] < floats['float gates']
  assert 'int16' in _kinds(files['int16 activations'])
  assert set(_kinds(files['float32'])) <= {'float32', 'int32'}


@pytest.mark.slow
def test_all_files_run(files, images):
  for content in files.values():
    probabilities = tflite.Reader(content)(np.stack(images))
    assert probabilities.shape == (4, 5)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=0.05)


def test_errors_are_relative_to_the_scale():
  row = {'mean_squared_error': '0.04', 'scale': '0.1'}
  assert quantization.relative_error(row) == pytest.approx(2)
