import os

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.base import errors
from efficientnet_advprop.export import exported_network
from efficientnet_advprop.export import sample_images
from efficientnet_advprop.export import saved_model
from efficientnet_advprop.export import tflite
from efficientnet_advprop.testing import tiny_network


@pytest.fixture(scope='module', name='images')
def _images(config):
  dataset = sample_images.evenly_spaced(config, 'validation', 12)
  return next(dataset.batch(12).as_numpy_iterator())['image']


@pytest.fixture(scope='module', name='tflite_path')
def _tflite_path(config, model_dir, tmp_path_factory):
  model, _ = saved_model.restored_model(config, model_dir)
  path = tmp_path_factory.mktemp('7') / 'model.tflite'
  path.write_bytes(tflite.convert(model, 'float32'))
  return os.fspath(path)


def _check(path, network, images):
  exported = exported_network.ExportedNetwork(path)
  assert exported.image_size == tiny_network.SIZE
  assert exported.num_classes == 3
  logits = tf.function(exported)(tf.constant(images)).numpy()
  np.testing.assert_allclose(
    tf.nn.softmax(logits), tf.nn.softmax(network(images)), atol=1e-5
  )
  assert np.isfinite(logits).all()
  return exported


def test_a_saved_model_is_called_like_the_network(version, network, images):
  assert exported_network.is_exported(version)
  exported = _check(version, network, images)
  assert exported.facts == {'step': None, 'weights': None}  # No report here.
  again = exported_network.ExportedNetwork(version)
  assert exported.digest == again.digest


def test_a_tflite_file_is_called_like_the_network(
  tflite_path, network, images, version
):
  exported = _check(tflite_path, network, images)
  assert exported.digest != exported_network.ExportedNetwork(version).digest


def test_a_model_dir_is_no_exported_file(model_dir):
  assert not exported_network.is_exported(model_dir)


@pytest.mark.parametrize('name', ['missing.tflite', 'damaged.tflite', 'folder'])
def test_what_cannot_be_read_is_one_line(tmp_path, name):
  (tmp_path / 'damaged.tflite').write_bytes(b'TFL3' * 20)
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'folder' / 'saved_model.pb').write_bytes(b'no')
  path = os.fspath(tmp_path / name)
  with pytest.raises(errors.ExportError) as error:
    exported_network.ExportedNetwork(path)
  assert str(error.value).startswith(f'{path}: not an exported network')
  assert '\n' not in str(error.value)
