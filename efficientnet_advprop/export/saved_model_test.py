import io
import os
import pathlib
import re
import resource
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from efficientnet_advprop.base import errors
from efficientnet_advprop.data import preprocessing
from efficientnet_advprop.export import saved_model
from efficientnet_advprop.models import factory
from efficientnet_advprop.testing import tiny_network

ExportError = errors.ExportError


@pytest.fixture(scope='module')
def signatures(version):
  loaded = tf.saved_model.load(version)
  yield loaded.signatures
  del loaded  # Owns the variables.


def _images(encoded):
  images = [preprocessing.evaluation_image(e, 32, 32) for e in encoded]
  return preprocessing.normalize(tf.stack(images))


def _assert_equal(actual, expected):
  # Both computed in float32, in different orders.
  tolerance = 1e-5 * np.max(np.abs(expected))
  np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


def _assert_outputs(outputs, logits):
  """The outputs follow from the logits; there are fewer than five classes."""
  assert len(outputs) == 5
  _assert_equal(outputs['logits'], logits)
  probabilities = tf.nn.softmax(logits).numpy()
  np.testing.assert_allclose(outputs['probabilities'], probabilities, atol=1e-6)
  order = np.argsort(-probabilities, axis=1)
  names = np.array(tiny_network.CLASS_NAMES)[order]
  np.testing.assert_array_equal(outputs['top_indices'], order)
  np.testing.assert_array_equal(
    outputs['top_classes'].numpy().astype(str), names
  )
  np.testing.assert_allclose(
    outputs['top_probabilities'], -np.sort(-probabilities), atol=1e-6
  )


def test_only_main_variables_are_in_the_file(config, version):
  path = os.path.join(version, 'variables', 'variables')
  saved = [
    tuple(shape)
    for name, shape in tf.train.list_variables(path)
    if name.startswith('weights/')
  ]
  plain = factory.create_model(config.model, 3, ())
  expected = [tuple(variable.shape) for variable in plain.variables]
  assert sorted(saved) == sorted(expected)
  graph = pathlib.Path(version, 'saved_model.pb').read_bytes()
  assert b'efficientnet' in graph
  assert b'adversarial' not in graph


@pytest.mark.parametrize('batch_size', [1, 5])
def test_float_signature_is_the_averaged_network(
  network, signatures, encoded, batch_size
):
  images = _images(encoded[-batch_size:])
  outputs = signatures['serving_default'](images=images)
  _assert_outputs(outputs, network(images, training=False))


@pytest.mark.parametrize('batch_size', [1, 12])
def test_bytes_signature_prepares_and_names(
  network, signatures, encoded, batch_size
):
  encoded = encoded[:batch_size]
  outputs = signatures['encoded_images'](image_bytes=tf.constant(encoded))
  _assert_outputs(outputs, network(_images(encoded), training=False))


def test_photographs_are_turned_upright_as_in_evaluation(network, signatures):
  rows, columns = np.mgrid[:60, :80]
  pixels = np.stack([rows * 4, columns * 3, rows + columns], -1)
  stored = Image.fromarray(pixels.astype(np.uint8))
  exif = Image.Exif()
  exif[0x0112] = 6  # The orientation: turned by a quarter.
  files = []
  for image, tags in ((stored, exif), (stored.rotate(-90, expand=True), b'')):
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', quality=100, subsampling=0, exif=tags)
    files.append(buffer.getvalue())
  outputs = signatures['encoded_images'](image_bytes=tf.constant(files))
  turned, upright = _images(files)
  # Two JPEGs of one picture differ by their rounding, in a level or two.
  np.testing.assert_allclose(turned, upright, atol=4 / 127.5)
  assert tf.reduce_max(abs(turned - upright[::-1])) > 0.5
  _assert_outputs(outputs, network(_images(files), training=False))


def test_undecodable_images_fail_their_request_alone(signatures, encoded):
  classify = signatures['encoded_images']
  good = encoded[0]
  for bad in (b'', b'no image'):
    with pytest.raises(
      tf.errors.InvalidArgumentError,
      match='not a JPEG, PNG, GIF or BMP file: image_bytes at index 1, 2',
    ):
      classify(image_bytes=tf.constant([good, bad, bad]))
  for cut in (good[: len(good) // 2], encoded[1][: len(encoded[1]) // 2]):
    with pytest.raises(tf.errors.InvalidArgumentError, match='Invalid'):
      classify(image_bytes=tf.constant([good, cut]))
  classify(image_bytes=tf.constant([good]))


def test_raw_weights_can_be_exported(config, model_dir, network):
  values = {'weights': 'raw'}
  raw = config.__class__(
    **{**config.__dict__, 'eval': config.eval.__class__(**values)}
  )
  model, step = saved_model.restored_model(raw, model_dir)
  assert step == tiny_network.STEP
  images = tf.zeros([1, 32, 32, 3])
  assert np.max(np.abs(model(images) - network(images))) > 0.01


def test_mixed_precision_does_not_reach_the_export(config, model_dir):
  tf.keras.mixed_precision.set_global_policy('mixed_bfloat16')
  try:
    model, _ = saved_model.restored_model(config, model_dir)
    policy = tf.keras.mixed_precision.global_policy().name
  finally:
    tf.keras.mixed_precision.set_global_policy('float32')
  assert policy == 'mixed_bfloat16'
  assert model.blocks[0].project.compute_dtype == 'float32'


def test_missing_checkpoint(config, tmp_path):
  with pytest.raises(ExportError, match='no checkpoint found') as caught:
    saved_model.restored_model(config, os.fspath(tmp_path))
  assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize('names', [['a', 'b'], ['a', 'b', 'c\nd']])
def test_class_names_must_fit(names):
  with pytest.raises(ExportError, match='class_names'):
    saved_model.checked_class_names(names, 3)


def test_full_disk_leaves_nothing(config, model_dir, tmp_path):
  # The system refuses to let any file grow further, as a full disk does.
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
  try:
    with pytest.raises(ExportError, match='cannot be written to'):
      tiny_network.write_version(config, model_dir, os.fspath(tmp_path))
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert not list(tmp_path.iterdir())


def _saved_model_cli(*arguments):
  command = 'from tensorflow.python.tools import saved_model_cli as cli'
  return subprocess.run(
    [sys.executable, '-c', f'{command}; cli.main()', *arguments],
    check=True,
    capture_output=True,
    text=True,
  ).stdout


def test_saved_model_cli_shows_it(version):
  text = _saved_model_cli('show', '--dir', version, '--all')
  for name, shape in (('images', '(-1, 32, 32, 3)'), ('image_bytes', '(-1)')):
    pattern = rf"inputs\['{name}'\] tensor_info:\s+dtype: \w+\s+shape: "
    assert re.search(pattern + re.escape(shape), text)
  pattern = r"outputs\['(\w+)'\] tensor_info:\s+dtype: \w+\s+shape: (\S.*)"
  outputs = set(re.findall(pattern, text))
  assert {name for name, _ in outputs if name != '__saved_model_init_op'} == {
    'logits', 'probabilities', 'top_classes', 'top_indices', 'top_probabilities'
  }  # fmt: skip


def test_saved_model_cli_runs_it(network, version, encoded, tmp_path):
  images = np.full([2, 32, 32, 3], 0.25, np.float32)
  np.save(tmp_path / 'images.npy', images)
  np.save(tmp_path / 'bytes.npy', np.array(encoded[:3]))
  for signature, inputs, expected in (
    ('serving_default', 'images=images.npy', network(images)),
    ('encoded_images', 'image_bytes=bytes.npy', network(_images(encoded[:3]))),
  ):
    name, _, file = inputs.partition('=')
    _saved_model_cli(
      *('run', '--dir', version, '--tag_set', 'serve'),
      *('--signature_def', signature, '--inputs', f'{name}={tmp_path / file}'),
      *('--outdir', os.fspath(tmp_path), '--overwrite'),
    )
    _assert_equal(np.load(tmp_path / 'logits.npy'), expected)
