import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.base import quiet
from efficientnet_advprop.export import sample_images
from efficientnet_advprop.export import saved_model
from efficientnet_advprop.export import tflite
from efficientnet_advprop.testing import tiny_network


@pytest.fixture(scope='module')
def examples(config):
  dataset = sample_images.evenly_spaced(config, 'validation', 12)
  return next(dataset.batch(12).as_numpy_iterator())


@pytest.fixture(scope='module')
def files(config, model_dir, examples):
  model, _ = saved_model.restored_model(config, model_dir)
  variants = ('float32', 'float16', 'dynamic', 'int8')
  return {
    variant: tflite.convert(model, variant, examples['image'])
    for variant in variants
  }


# How much int8 loses depends on the training; the export measures it.
@pytest.mark.parametrize('variant', ['float32', 'float16', 'dynamic'])
def test_files_classify_as_the_network(network, files, examples, variant):
  images = examples['image']
  expected = tf.nn.softmax(network(images)).numpy()
  actual = tflite.Reader(files[variant])(images)
  assert actual.dtype == np.float32
  tolerance = {'float32': 1e-5, 'float16': 0.02}
  assert np.max(np.abs(actual - expected)) <= tolerance.get(variant, 1)
  np.testing.assert_array_equal(actual.argmax(1), examples['label'])


def test_smaller_variants_are_smaller(files):
  sizes = {variant: len(content) for variant, content in files.items()}
  assert sizes['float16'] < 0.65 * sizes['float32']
  assert sizes['int8'] < 0.5 * sizes['float32']
  assert sizes['dynamic'] < 0.5 * sizes['float32']


def test_inputs_and_outputs(files):
  for content in files.values():
    with quiet.quiet_logs():
      interpreter = tf.lite.Interpreter(model_content=content)
    (images,) = interpreter.get_input_details()
    (probabilities,) = interpreter.get_output_details()
    assert images['dtype'] == probabilities['dtype'] == np.float32
    assert images['shape_signature'].tolist() == [1, 32, 32, 3]
    assert probabilities['shape'].tolist() == [1, len(tiny_network.CLASS_NAMES)]


def test_int8_has_integer_activations_and_a_scale_per_channel(files):
  with quiet.quiet_logs():
    interpreter = tf.lite.Interpreter(model_content=files['int8'])
  details = interpreter.get_tensor_details()
  floats = [d for d in details if d['dtype'] == np.float32]
  assert len(floats) == 2  # Input and output.
  kernels = [d for d in details if len(d['shape']) == 4 and d['shape'][0] > 1]
  scales = [len(d['quantization_parameters']['scales']) for d in kernels]
  assert max(scales) > 1


def test_int8_needs_images(config, model_dir):
  model, _ = saved_model.restored_model(config, model_dir)
  with pytest.raises(ValueError, match='calibration'):
    tflite.convert(model, 'int8')


def test_ai_edge_litert_reads_it(files, examples):
  litert = pytest.importorskip(
    'ai_edge_litert.interpreter', reason='ai-edge-litert is optional'
  )
  images = examples['image'][:1]
  for variant, content in files.items():
    interpreter = litert.Interpreter(model_content=content)
    run = interpreter.get_signature_runner()
    actual = run(images=images)['probabilities']
    expected = tflite.Reader(content)(images)
    if variant != 'int8':
      assert actual.argmax() == expected.argmax()
    if variant == 'float32':
      np.testing.assert_allclose(actual, expected, atol=1e-6)
