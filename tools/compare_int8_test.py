import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import quiet
from efficientnet_advprop.export import tflite
from efficientnet_advprop.models import factory
from tools import compare_int8


@pytest.fixture(scope='module')
def images():
  rng = np.random.default_rng(0)
  return list(rng.uniform(-1, 1, [4, 32, 32, 3]).astype(np.float32))


@pytest.fixture(scope='module')
def files(images):
  values = {'image_size': 32, 'width_coefficient': 0.25}
  config = config_lib.from_dict({'model': {**values, 'depth_coefficient': 0.1}})
  model = factory.create_model(config.model, 5, ())
  return compare_int8.files(model, images, float_layers=3)


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
  assert compare_int8.relative_error(row) == pytest.approx(2)


@pytest.mark.parametrize(
  'argv, word',
  [
    (['--model_dir=runs/none', 'more'], 'more'),
    (['--model_dir=runs/none', '--num_images=0'], 'num_images'),
    ([], 'model_dir'),
  ],
)
def test_a_wrong_flag_ends_in_one_line(capsys, argv, word):
  compare_int8._FLAGS.unparse_flags()
  with pytest.raises(SystemExit) as stopped:
    compare_int8.parse_flags(['compare_int8', *argv])
  lines = capsys.readouterr().err.splitlines()
  assert stopped.value.code == 2 and len(lines) == 1 and word in lines[0]


def test_no_run_ends_in_one_line(capsys, tmp_path):
  compare_int8._FLAGS(['compare_int8', f'--model_dir={tmp_path}'])
  with pytest.raises(SystemExit) as stopped:
    compare_int8.main([])
  assert stopped.value.code == 2
  assert 'config.yaml' in capsys.readouterr().err
