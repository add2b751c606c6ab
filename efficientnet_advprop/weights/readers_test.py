import json
import os
import pathlib
import pickle
import struct
import sys
import tracemalloc
import types
import zipfile

import h5py
import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import pretrained
from efficientnet_advprop.base import errors
from efficientnet_advprop.testing import tiny_runs
from efficientnet_advprop.weights import loading
from efficientnet_advprop.weights import names
from efficientnet_advprop.weights import readers

_TINY = tiny_runs.EFFICIENTNET
_CLASSES = 5


def _network(name='efficientnet-b0', classes=_CLASSES, **settings):
  return pretrained.build_model(name, classes, (), **{**_TINY, **settings})


@pytest.fixture(scope='module', name='source')
def _source():
  """A network whose values are all different."""
  network = _network()
  rng = np.random.default_rng(0)
  for variable in network.variables:
    variable.assign(rng.uniform(0.5, 1.5, variable.shape))
  return network


def _published(network, naming_table):
  """The network's values by their published names, in PyTorch's layout."""
  variables = loading.variables_by_place(network)
  values = {}
  for name, (place, axes) in naming_table(network).items():
    value = variables[place].numpy()
    if axes is not None:
      value = value.transpose(np.argsort(axes))
    values[name] = np.ascontiguousarray(value)
  return values


def _write_safetensors(path, values):
  header, data = {}, b''
  for name, value in values.items():
    end = len(data) + value.nbytes
    header[name] = {
      'dtype': 'I64' if value.dtype == np.int64 else 'F32',
      'shape': list(value.shape),
      'data_offsets': [len(data), end],
    }
    data += value.tobytes()
  text = json.dumps(header).encode()
  path.write_bytes(struct.pack('<Q', len(text)) + text + data)
  return os.fspath(path)


def _assert_equal(network, other):
  for ours, theirs in zip(network.variables, other.variables):
    np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(name='safetensors')
def _safetensors(source, tmp_path):
  values = _published(source, names.timm)
  values['bn1.num_batches_tracked'] = np.array(7, np.int64)
  return _write_safetensors(tmp_path / 'any name', values)


def test_a_safetensors_file_fills_the_network(source, safetensors):
  network = _network(weights=safetensors)
  _assert_equal(network, source)
  assert network.model_config.normalization == 'advprop'


def test_the_folder_of_a_download_is_read(source, safetensors, tmp_path):
  folder = tmp_path / 'download'
  folder.mkdir()
  os.rename(safetensors, folder / 'model.safetensors')
  mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
  for config, pixels in (
    ({'pretrained_cfg': {'mean': mean, 'std': std}}, 'imagenet'),
    ({'pretrained_cfg': {'mean': [0.5] * 3, 'std': [0.5] * 3}}, 'advprop'),
    ({'pretrained_cfg': None}, 'advprop'),
    ([], 'advprop'),
  ):
    (folder / 'config.json').write_text(json.dumps(config))
    network = _network(weights=os.fspath(folder))
    assert network.model_config.normalization == pixels
    _assert_equal(network, source)
  network = _network(weights=os.fspath(folder), normalization='imagenet')
  assert network.model_config.normalization == 'imagenet'


def test_keras_weights_are_read(source, tmp_path):
  path = tmp_path / 'any name'
  with h5py.File(path, 'w') as file:
    for name, value in _published(source, names.keras).items():
      layer, variable = name.split('/')
      file[f'{layer}/{layer}/{variable}:0'] = value
  network = _network(weights=os.fspath(path))
  _assert_equal(network, source)
  assert network.model_config.normalization == 'imagenet'


@pytest.mark.parametrize('is_folder', [False, True])
def test_a_checkpoint_of_tensorflow_1_is_read(source, is_folder, tmp_path):
  values = {
    f'efficientnet-b0/{name}': value
    for name, value in _published(source, names.official).items()
  }
  path = os.fspath(tmp_path / 'model.ckpt-7')
  tf.raw_ops.SaveV2(
    prefix=path,
    tensor_names=list(values),
    shape_and_slices=[''] * len(values),
    tensors=list(values.values()),
  )
  place = os.fspath(tmp_path) if is_folder else path
  _assert_equal(_network(weights=place), source)


def test_a_run_is_read_with_its_pixels(source, tmp_path):
  (tmp_path / 'checkpoints').mkdir()
  tf.train.Checkpoint(ema=source).write(
    os.fspath(tmp_path / 'checkpoints' / 'ckpt-1')
  )
  (tmp_path / 'config.yaml').write_text('model: {normalization: imagenet}')
  network = _network(weights=os.fspath(tmp_path))
  _assert_equal(network, source)
  assert network.model_config.normalization == 'imagenet'


def test_other_classes_start_at_zero_and_domains_as_copies(safetensors, source):
  network = pretrained.build_model(
    'efficientnet-b0', 3, ('adversarial',), safetensors, **_TINY
  )
  assert not np.any(network.classifier.kernel)
  norm = network.head.norm
  for variable in ('gamma', 'moving_variance'):
    expected = getattr(source.head.norm, variable)
    for domain in ('main', 'adversarial'):
      found = getattr(norm.norm_of(domain), variable)
      np.testing.assert_array_equal(found, expected)


def _refused(path, *parts, **settings):
  with pytest.raises(errors.CheckpointError) as caught:
    _network(weights=os.fspath(path), **settings)
  message = str(caught.value)
  assert len(message.splitlines()) == 1 and str(path) in message
  for part in parts:
    assert part in message, message


def test_names_that_are_missing_or_unexpected_are_listed(source, tmp_path):
  values = _published(source, names.timm)
  values['extra.weight'] = values.pop('bn1.bias')
  path = tmp_path / 'x'
  _write_safetensors(path, values)
  _refused(path, 'missing bn1.bias; unexpected extra.weight')
  _refused(path, 'is it of another network', depth_coefficient=0.6)
  values['bn1.bias'] = values.pop('extra.weight')
  values['conv_head.weight'] = values['conv_head.weight'][:-1]
  _write_safetensors(path, values)
  _refused(path, 'head/kernel has the shape', 'width or depth differ')
  _refused(path, "weights of timm's EfficientNets, not", name='resnet-18')
  _write_safetensors(path, {'strange': np.ones(3, np.float32)})
  _refused(path, 'holds strange and so on', 'no weights that are known')


def test_hostile_files_end_in_one_line(tmp_path):
  canary = tmp_path / 'canary'

  class Bomb:
    def __reduce__(self):
      return pathlib.Path.touch, (canary,)

  path = tmp_path / 'x'
  path.write_bytes(b'some text')
  _refused(path, 'by its first bytes')
  path.write_bytes(b'')
  _refused(path, 'by its first bytes')
  path.write_bytes(struct.pack('<Q', 2**62) + b'{"a"')
  _refused(path, 'claims 4611686018427387904 bytes')
  path.write_bytes(pickle.dumps(Bomb(), 2))
  _refused(path, 'not only tensors; nothing of it was executed')
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('x/data.pkl', pickle.dumps(Bomb()))
  _refused(path, 'not only tensors; nothing of it was executed')
  assert not canary.exists()
  path.write_bytes(readers._HDF5 + b'no more')
  _refused(path, 'cannot be read')
  _refused(tmp_path / 'nothing', 'no file, run or checkpoint is there')


@pytest.mark.parametrize(
  'options',
  [
    dict(shape=[1 << 28], dtype='f4', chunks=(1 << 16,)),
    dict(data=np.zeros(1 << 22, 'f4'), compression='gzip'),
  ],
)
def test_hdf5_that_claims_more_than_it_holds_is_refused(options, tmp_path):
  path = tmp_path / 'x'
  with h5py.File(path, 'w') as file:
    file.create_dataset('stem_conv/kernel:0', **options)
  tracemalloc.start()
  try:
    _refused(path, 'claims more bytes than the file has')
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
  finally:
    tracemalloc.stop()


def test_timm_names_need_the_hub_s_package(monkeypatch):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  _refused(
    'timm/some_name',
    'install it, or get model.safetensors of'
    ' https://huggingface.co/timm/some_name by hand',
  )


def test_timm_names_are_downloaded(monkeypatch, source, safetensors):
  asked = []

  def download(repository, file):
    asked.append((repository, file))
    if file == 'config.json':
      raise OSError('offline')
    return safetensors

  hub = types.SimpleNamespace(hf_hub_download=download)
  monkeypatch.setitem(sys.modules, 'huggingface_hub', hub)
  _assert_equal(_network(weights='timm/some_name'), source)
  assert asked == [
    ('timm/some_name', 'config.json'),
    ('timm/some_name', 'model.safetensors'),
  ]


def test_without_a_network_the_file_to_get_is_named(monkeypatch):
  def download(repository, file):
    del repository, file
    raise RuntimeError('no route\nto host')

  hub = types.SimpleNamespace(hf_hub_download=download)
  monkeypatch.setitem(sys.modules, 'huggingface_hub', hub)
  _refused(
    'timm/some_name',
    'cannot be downloaded (no route)',
    'or get model.safetensors of',
  )


def test_pixels_of_another_range_are_warned_of(safetensors, caplog):
  _network(weights=safetensors, normalization='imagenet')
  assert 'usually expect model.normalization=advprop' in caplog.text
