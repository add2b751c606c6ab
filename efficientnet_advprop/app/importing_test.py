import inspect
import math
import os
import pathlib
import pickle
import re
import resource

import h5py
import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import pretrained
from efficientnet_advprop.app import importing
from efficientnet_advprop.base import errors
from efficientnet_advprop.models import factory
from efficientnet_advprop.weights import loading
from efficientnet_advprop.weights import names as names_lib

_NAME = 'efficientnet-b0'
_CLASSES = 7
_OVERRIDES = (f'data.num_classes={_CLASSES}', 'model.image_size=64')
_RNG = np.random.default_rng(0)


@pytest.fixture(scope='module')
def reference():
  """keras.applications' EfficientNetB0 with random weights and statistics."""
  tf.random.set_seed(1)
  network = tf.keras.applications.EfficientNetB0(
    weights=None,
    input_shape=(64, 64, 3),
    classes=_CLASSES,
    classifier_activation=None,
  )
  for variable in network.weights:
    if re.search('gamma|variance', variable.name):
      variable.assign(_RNG.uniform(0.5, 1.5, variable.shape))
    elif re.search('beta|mean|bias', variable.name):
      variable.assign(_RNG.normal(0, 0.1, variable.shape))
  return network


def _behind_normalization(reference, last='predictions'):
  """The reference from the stem on, on inputs that are normalized already."""
  stem = reference.get_layer('stem_conv_pad')
  return tf.keras.Model(stem.input, reference.get_layer(last).output)


def _official_name(layer, variable):
  """From keras.applications' names, independently of the tool's own tables."""
  match = re.fullmatch(r'block(\d)([a-z])_(\w+)', layer)
  if not match:
    scope, kind = {
      'stem_conv': ('stem', 'conv2d'),
      'stem_bn': ('stem', 'tpu_batch_normalization'),
      'top_conv': ('head', 'conv2d'),
      'top_bn': ('head', 'tpu_batch_normalization'),
      'predictions': ('head', 'dense'),
    }[layer]
    return f'{scope}/{kind}/{variable}'
  stage, letter, part = int(match[1]), match[2], match[3]
  before = sum((1, 2, 2, 3, 3, 4, 1)[: stage - 1])
  number = before + ord(letter) - ord('a')
  norms = ['expand_bn', 'bn', 'project_bn'][stage == 1 :]
  convolutions = ['expand_conv', 'project_conv'][stage == 1 :]
  if part in norms:
    index, kind = norms.index(part), 'tpu_batch_normalization'
  elif part in convolutions:
    index, kind = convolutions.index(part), 'conv2d'
  elif part == 'dwconv':
    index, kind = 0, 'depthwise_conv2d'
  else:
    index, kind = ['se_reduce', 'se_expand'].index(part), 'se/conv2d'
  suffix = f'_{index}' if index else ''
  return f'blocks_{number}/{kind}{suffix}/{variable}'


def _official_values(reference):
  values = {}
  for layer in reference.layers:
    if isinstance(layer, tf.keras.layers.Normalization):
      continue
    for variable in layer.weights:
      name = variable.name.split('/')[-1].split(':')[0]
      full = f'{_NAME}/{_official_name(layer.name, name)}'
      values[full] = variable.numpy()
  return values


def _write_tf1(path, values):
  """Writes what tf.compat.v1.train.Saver writes, by the same operation."""
  tf.raw_ops.SaveV2(
    prefix=path,
    tensor_names=list(values),
    shape_and_slices=[''] * len(values),
    tensors=list(values.values()),
  )
  return path


def _restored(config, model_dir, weights):
  model = factory.create_model(config.model, _CLASSES, config.auxiliary_domains)
  assert loading.restore(model, model_dir, weights) == 0
  return model


def _images():
  return _RNG.uniform(-1, 1, [2, 64, 64, 3]).astype(np.float32)


def _assert_equal(actual, expected):
  tolerance = 1e-5 * np.max(np.abs(expected))
  np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


@pytest.fixture(scope='module')
def imported(reference, tmp_path_factory):
  """A TF1 checkpoint with averaged, raw and optimizer values."""
  directory = tmp_path_factory.mktemp('official')
  values = _official_values(reference)
  assert len(values) == 311  # B0's number in facts of the official code.
  state = {'global_step': np.int64(5)}
  for name, value in values.items():
    state[f'{name}/ExponentialMovingAverage'] = value
    state[name] = value * 1.01
    state[f'{name}/RMSProp'] = value
    state[f'{name}/RMSProp_1'] = value
  path = _write_tf1(os.fspath(directory / 'model.ckpt'), state)
  model_dir = os.fspath(directory / 'run')
  config = importing.import_weights(path, _NAME, model_dir, _OVERRIDES)
  return config, model_dir


def test_averaged_weights_give_the_logits_of_the_reference(reference, imported):
  config, model_dir = imported
  model = _restored(config, model_dir, 'ema')
  images = _images()
  expected = _behind_normalization(reference)(images)
  _assert_equal(model(images), expected)
  assert config.auxiliary_domains == ('adversarial',)
  np.testing.assert_array_equal(
    model(images), model(images, domain='adversarial')
  )


def test_raw_weights_are_the_raw_ones(reference, imported):
  config, model_dir = imported
  model = _restored(config, model_dir, 'raw')
  kernel = reference.get_layer('predictions').kernel.numpy()
  np.testing.assert_allclose(model.classifier.kernel, kernel * 1.01)


def test_the_run_can_be_trained(imported):
  config, model_dir = imported
  saved = config_lib.load_config(os.path.join(model_dir, 'config.yaml'))
  assert saved == config
  names = [
    name
    for name, _ in tf.train.list_variables(
      os.path.join(model_dir, 'checkpoints', 'ckpt-0')
    )
  ]
  assert any(name.startswith('optimizer/_iterations') for name in names)


def test_keras_file(reference, tmp_path):
  path = os.fspath(tmp_path / 'weights.h5')
  reference.save_weights(path)
  model_dir = os.fspath(tmp_path / 'run')
  config = importing.import_weights(
    path, _NAME, model_dir, ('model.normalization=advprop', *_OVERRIDES)
  )
  images = _images()
  expected = _behind_normalization(reference)(images)
  _assert_equal(_restored(config, model_dir, 'ema')(images), expected)


def test_keras_weights_take_pixels_less_the_mean(reference, tmp_path):
  path = os.fspath(tmp_path / 'weights.h5')
  reference.save_weights(path)
  model_dir = os.fspath(tmp_path / 'run')
  config = importing.import_weights(path, _NAME, model_dir, _OVERRIDES)
  images = _images()
  mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
  prepared = ((images + 1) * 127.5 / 255 - mean) / deviation
  expected = _behind_normalization(reference)(prepared)
  _assert_equal(_restored(config, model_dir, 'ema')(images), expected)


# NOTE: EfficientNet-L2 of Noisy Student, 4.3 times as wide, 5.3 times as deep.
@pytest.mark.once
@pytest.mark.parametrize('depth', [3.6, 5.3])
def test_official_names_of_deep_networks(depth):
  model = pretrained.build_model(
    'efficientnet-b8', 2, (), width_coefficient=0.1, depth_coefficient=depth
  )
  repeats = [math.ceil(n * depth) for n in (1, 2, 2, 3, 3, 4, 1)]
  variables = 'gamma', 'beta', 'moving_mean', 'moving_variance'

  def norm(name):
    return [f'{name}/{variable}' for variable in variables]

  expected = []
  for scope in ('stem', 'head'):
    expected.append(f'{scope}/conv2d/kernel')
    expected += norm(f'{scope}/batch_normalization')
  for number in range(sum(repeats)):
    scope = f'blocks_{number}'
    expanded = number >= repeats[0]  # The first stage does not expand.
    if expanded:
      expected.append(f'{scope}/conv2d/kernel')
      expected += norm(f'{scope}/batch_normalization')
    middle, last = ('_1', '_2') if expanded else ('', '_1')
    expected.append(f'{scope}/depthwise_conv2d/depthwise_kernel')
    expected += norm(f'{scope}/batch_normalization{middle}')
    expected.append(f'{scope}/conv2d{middle}/kernel')
    expected += norm(f'{scope}/batch_normalization{last}')
    for name in ('conv2d', 'conv2d_1'):
      expected += [f'{scope}/se/{name}/{v}' for v in ('kernel', 'bias')]
  expected += [f'head/dense/{variable}' for variable in ('kernel', 'bias')]
  names = names_lib.official(model)
  assert list(names) == expected
  places = {part.place for part in names.values()}
  assert places == set(loading.variables_by_place(model))


@pytest.mark.slow
@pytest.mark.parametrize(
  'name, depth',
  [
    *(('b1', 1.1), ('b2', 1.2), ('b3', 1.4), ('b4', 1.8), ('b5', 2.2)),
    *(('b6', 2.6), ('b7', 3.1)),
  ],
)
def test_deep_keras_files(name, depth, tmp_path):
  module = inspect.getmodule(tf.keras.applications.EfficientNetB0)
  reference = module.EfficientNet(
    *(0.25, depth, 64),
    weights=None,
    classes=_CLASSES,
    classifier_activation=None,
  )
  path = os.fspath(tmp_path / 'weights.h5')
  reference.save_weights(path)
  model_dir = os.fspath(tmp_path / 'run')
  config = importing.import_weights(
    path,
    f'efficientnet-{name}',
    model_dir,
    (
      'model.normalization=advprop',
      'model.width_coefficient=0.25',
      *_OVERRIDES,
    ),
  )
  images = _images()
  expected = _behind_normalization(reference)(images)
  _assert_equal(_restored(config, model_dir, 'ema')(images), expected)


def test_auxiliary_norms_are_imported(reference, tmp_path):
  values = _official_values(reference)
  for name, value in list(values.items()):
    if 'batch_norm' in name:
      norm, _, variable = name.rpartition('/')
      values[f'{norm}_aux/{variable}'] = value + 0.5
  path = _write_tf1(os.fspath(tmp_path / 'model.ckpt'), values)
  model_dir = os.fspath(tmp_path / 'run')
  config = importing.import_weights(path, _NAME, model_dir, _OVERRIDES)
  norm = _restored(config, model_dir, 'ema').blocks[3].project.norm
  for name in ('gamma', 'beta', 'moving_mean', 'moving_variance'):
    auxiliary = getattr(norm.norm_of('adversarial'), name)
    np.testing.assert_allclose(auxiliary - getattr(norm, name), 0.5, atol=1e-6)


def _import(path, tmp_path, overrides=_OVERRIDES):
  model_dir = tmp_path / 'run'
  with pytest.raises(errors.CheckpointError) as caught:
    importing.import_weights(
      os.fspath(path), _NAME, os.fspath(model_dir), overrides
    )
  assert not model_dir.exists()
  message = str(caught.value)
  assert len(message.splitlines()) == 1
  return message


def test_missing_and_surplus_variables(reference, tmp_path):
  values = _official_values(reference)
  value = values.pop(f'{_NAME}/blocks_3/se/conv2d/bias')
  path = _write_tf1(os.fspath(tmp_path / 'missing'), values)
  assert 'missing blocks_3/se/conv2d/bias' in _import(path, tmp_path)
  values[f'{_NAME}/blocks_3/se/conv2d/bias'] = value
  values[f'{_NAME}/blocks_99/conv2d/kernel'] = value
  path = _write_tf1(os.fspath(tmp_path / 'surplus'), values)
  assert 'unexpected blocks_99/conv2d/kernel' in _import(path, tmp_path)


def test_another_number_of_classes(reference, tmp_path):
  path = _write_tf1(os.fspath(tmp_path / 'model'), _official_values(reference))
  message = _import(path, tmp_path, ('model.image_size=64',))
  assert 'has 7 classes, and data.num_classes is 1000' in message


def test_missing_and_damaged_files(tmp_path):
  assert 'cannot be read' in _import(tmp_path / 'nothing', tmp_path)
  assert 'cannot be read' in _import(tmp_path / 'nothing.h5', tmp_path)
  (tmp_path / 'bad.h5').write_bytes(b'no HDF5')
  assert 'by its first bytes' in _import(tmp_path / 'bad.h5', tmp_path)
  (tmp_path / 'bad.h5').write_bytes(b'\x89HDF\r\n\x1a\nno HDF5')
  assert 'cannot be read' in _import(tmp_path / 'bad.h5', tmp_path)
  (tmp_path / 'bad.index').write_bytes(b'no index')
  (tmp_path / 'bad.data-00000-of-00001').write_bytes(b'')
  assert 'can be read: damaged' in _import(tmp_path / 'bad', tmp_path)


def test_code_in_a_file_is_not_run(tmp_path):
  canary = tmp_path / 'canary'

  class Bomb:
    def __reduce__(self):
      return pathlib.Path.touch, (canary,)

  path = tmp_path / 'bomb.h5'
  with h5py.File(path, 'w') as file:
    file.attrs['model_config'] = '{"class_name": "Lambda"}'
    file['layer/kernel:0'] = np.void(pickle.dumps(Bomb()))
  assert 'holds no numbers' in _import(path, tmp_path)
  assert not canary.exists()


def test_values_outside_the_file_are_not_read(tmp_path):
  (tmp_path / 'secret').write_bytes(b'1234')
  path = tmp_path / 'external.h5'
  with h5py.File(path, 'w') as file:
    file.create_dataset(
      'layer/kernel:0',
      shape=(1,),
      dtype='f4',
      external=[(os.fspath(tmp_path / 'secret'), 0, 4)],
    )
  assert 'layer/kernel:0 refers to another file' in _import(path, tmp_path)


def test_a_saved_model_is_read_and_not_loaded(tmp_path, reference):
  folder = tmp_path / 'saved_model'
  (folder / 'variables').mkdir(parents=True)
  (folder / 'saved_model.pb').write_bytes(b'no graph')
  values = _official_values(reference)
  _write_tf1(os.fspath(folder / 'variables' / 'variables'), values)
  assert 'has 7 classes' in _import(folder, tmp_path, ())


@pytest.mark.once
def test_a_full_disk_leaves_nothing(reference, tmp_path):
  path = _write_tf1(os.fspath(tmp_path / 'model'), _official_values(reference))
  # The system refuses to let any file grow further, as a full disk does.
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
  try:
    assert 'cannot write the checkpoint' in _import(path, tmp_path)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_run_is_not_overwritten(imported):
  _, model_dir = imported
  with pytest.raises(errors.CheckpointError, match='holds a run already'):
    importing.import_weights('x', _NAME, model_dir)
