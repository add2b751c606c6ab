import json
import os
import struct

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import pretrained
from efficientnet_advprop.app import networks
from efficientnet_advprop.base import errors
from efficientnet_advprop.testing import tiny_onnx
from efficientnet_advprop.testing import tiny_runs
from efficientnet_advprop.weights import loading
from efficientnet_advprop.weights import names

_IMAGES = np.random.default_rng(0).uniform(-1, 1, [4, 32, 32, 3]).astype('f')
_STRATEGY = tf.distribute.OneDeviceStrategy('CPU:0')


def _config(network, pixels=None):
  return config_lib.from_dict({'eval': {'network': network, 'pixels': pixels}})


def _open(network, pixels=None, strategy=_STRATEGY):
  return networks.open_network(_config(network, pixels), strategy, 'runs/none')


def _reference(pixels):
  """The pixels by NumPy, as the packages that trained such networks say."""
  levels = (_IMAGES.astype(np.float64) + 1) / 2 * 255
  if pixels == 'caffe':  # Caffe's ResNets: BGR less the mean.
    return levels[..., ::-1] - [103.939, 116.779, 123.68]
  if pixels == 'imagenet':  # torchvision.
    mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    return (levels / 255 - mean) / deviation
  return {'advprop': levels / 127.5 - 1, 'raw': levels, 'unit': levels / 255}[
    pixels
  ]


@pytest.fixture(name='model')
def _model():
  return tf.keras.Sequential(
    [
      tf.keras.layers.Conv2D(4, 3, strides=4, input_shape=(32, 32, 3)),
      tf.keras.layers.GlobalAveragePooling2D(),
      tf.keras.layers.Dense(5),
    ]
  )


@pytest.mark.parametrize(
  'pixels', ['advprop', 'raw', 'unit', 'imagenet', 'caffe']
)
def test_a_keras_file_gets_the_pixels_that_are_stated(model, tmp_path, pixels):
  path = os.fspath(tmp_path / 'net.keras')
  model.save(path)
  network = _open(path, pixels)
  expected = model(_reference(pixels).astype('f')).numpy()
  found = tf.function(network.call)(tf.constant(_IMAGES), domain='main').numpy()
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
  assert (network.image_size, network.num_classes) == (32, 5)
  assert network.is_foreign and network.has_gradients
  assert network.folder == os.path.join('exported', 'net')


def test_probabilities_become_logits_with_gradients(model, tmp_path):
  whole = tf.keras.Sequential([model, tf.keras.layers.Softmax()])
  path = os.fspath(tmp_path / 'net.keras')
  whole.save(path)
  network = _open(path, 'advprop')
  images = tf.constant(_IMAGES)
  with tf.GradientTape() as tape:
    tape.watch(images)
    logits = network.call(images)
  assert np.any(tape.gradient(logits, images) != 0)
  np.testing.assert_allclose(
    tf.nn.softmax(logits), whole(_IMAGES), rtol=1e-5, atol=1e-7
  )


def test_a_network_of_keras_brings_its_own_pixels(monkeypatch):
  real = tf.keras.applications.MobileNetV2
  made = []

  def without_download(weights):
    assert weights == 'imagenet'
    made.append(real(weights=None, input_shape=(32, 32, 3), classes=7))
    return made[-1]

  without_download.__module__ = real.__module__
  monkeypatch.setattr(tf.keras.applications, 'MobileNetV2', without_download)
  network = _open('keras:MobileNetV2')
  assert network.folder == os.path.join('exported', 'keras-MobileNetV2')
  # MobileNet takes [-1, 1].
  np.testing.assert_allclose(
    tf.nn.softmax(network.call(tf.constant(_IMAGES))),
    made[0](_IMAGES),
    atol=1e-5,
  )


def test_an_onnx_file_of_others_is_channels_first_and_needs_its_pixels(
  tmp_path,
):
  content = tiny_onnx.content(['batch', 3, 32, 32], axes=(2, 3))
  (tmp_path / 'other.onnx').write_bytes(content)
  path = os.fspath(tmp_path / 'other.onnx')
  with pytest.raises(config_lib.ConfigError, match=r'^eval\.pixels: .*unit'):
    _open(path)
  network = _open(path, 'imagenet')
  expected = _reference('imagenet').mean((1, 2)) @ tiny_onnx.WEIGHTS
  found = tf.function(network.call)(tf.constant(_IMAGES)).numpy()
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
  assert not network.has_gradients and network.is_foreign


def test_what_cannot_be_opened_is_one_line(tmp_path, model):
  (tmp_path / 'bad.keras').write_bytes(b'no archive')
  text = tf.keras.Sequential([tf.keras.layers.Dense(2, input_shape=(3,))])
  text.save(tmp_path / 'table.keras')
  for path, words in (
    (tmp_path / 'bad.keras', 'cannot be loaded by Keras'),
    (tmp_path / 'table.keras', r'maps \(None, 3\) to'),
    ('keras:ResNet5', 'did you mean ResNet50'),
  ):
    with pytest.raises(errors.UserError, match=words) as error:
      _open(os.fspath(path), 'unit')
    assert '\n' not in str(error.value)
  two = tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1'])
  with pytest.raises(config_lib.ConfigError, match='one_device'):
    _open('x.onnx', strategy=two)


def test_published_weights_are_a_network_with_their_pixels(tmp_path):
  """The run's own settings of pixels do not count."""
  settings = tiny_runs.EFFICIENTNET
  source = pretrained.build_model('resnet-18', 3, (), **settings)
  values = {}
  variables = loading.variables_by_place(source)
  for name, (place, axes) in names.torchvision(source).items():
    value = variables[place].numpy()
    values[name] = value if axes is None else value.transpose(np.argsort(axes))
  path = tmp_path / 'resnet.safetensors'
  header, data = {}, b''
  for name, value in values.items():
    offsets = [len(data), len(data) + value.nbytes]
    header[name] = dict(
      dtype='F32', shape=list(value.shape), data_offsets=offsets
    )
    data += value.tobytes()
  text = json.dumps(header).encode()
  path.write_bytes(struct.pack('<Q', len(text)) + text + data)
  config = config_lib.from_dict(
    {
      'model': {'name': 'resnet-18', **settings},
      'data': {'num_classes': 3, 'dir': os.fspath(tmp_path)},
      'eval': {'network': os.fspath(path)},
    }
  )
  strategy = tf.distribute.OneDeviceStrategy('CPU:0')
  network = networks.open_network(config, strategy, os.fspath(tmp_path))
  assert network.folder == os.path.join('published', 'resnet.safetensors')
  assert network.step is None and network.domains == ('main',)
  images = tf.random.stateless_uniform([2, 16, 16, 3], [0, 0], -1, 1)
  pixels = ((images + 1) / 2 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
  np.testing.assert_allclose(
    network.call(images), source(pixels), rtol=1e-4, atol=1e-5
  )
