import collections
import io
import os
import pathlib
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from efficientnet_advprop.weights import state_dicts

_RNG = np.random.default_rng(0)
_TENSORS = {
  'conv.weight': _RNG.normal(size=(4, 3, 2, 2)).astype(np.float32),
  'norm.bias': np.arange(4, dtype=np.float32),
  'norm.num_batches_tracked': np.array(5, np.int64),
}
_STORAGES = {'float32': 'FloatStorage', 'int64': 'LongStorage'}


class _Named:
  """Pickles as a name of another module, such as torch.FloatStorage."""

  def __init__(self, module, name):
    self.module, self.name = module, name


class _Call:
  """Pickles as a call of a named function."""

  def __init__(self, module, name, *arguments):
    self.function, self.arguments = _Named(module, name), arguments


class _Storage:
  def __init__(self, key, kind, size):
    self.reference = ('storage', _Named('torch', kind), key, 'cpu', size)


class _Pickler(pickle._Pickler):  # The one of Python can write any name.
  legacy = False

  def persistent_id(self, value):
    if not isinstance(value, _Storage):
      return None
    return (*value.reference, None) if self.legacy else value.reference

  def save(self, value, **options):
    if isinstance(value, _Named):
      self.write(f'c{value.module}\n{value.name}\n'.encode())
    elif isinstance(value, _Call):
      self.save(value.function)
      self.save(value.arguments)
      self.write(pickle.REDUCE)
    else:
      super().save(value, **options)


def _pickled(value, legacy=False):
  buffer = io.BytesIO()
  pickler = _Pickler(buffer, 2)
  pickler.legacy = legacy
  pickler.dump(value)
  return buffer.getvalue()


def _strides(shape):
  return tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))


def _tensor(key, value, size=None, shape=None, strides=None, offset=0):
  shape = value.shape if shape is None else shape
  return _Call(
    'torch._utils',
    '_rebuild_tensor_v2',
    _Storage(
      key,
      _STORAGES[value.dtype.name],
      value.size if size is None else size,
    ),
    offset,
    shape,
    _strides(shape) if strides is None else strides,
    False,
    collections.OrderedDict(),
  )


def _state(tensors=None):
  tensors = _TENSORS if tensors is None else tensors
  return collections.OrderedDict(
    (name, _tensor(str(number), value))
    for number, (name, value) in enumerate(tensors.items())
  )


def _archive(path, state=None, compression=zipfile.ZIP_STORED, **files):
  """Writes the form of `torch.save` since 2020."""
  data = _pickled(_state()) if state is None else state
  contents = {'data.pkl': data, 'byteorder': b'little', 'version': b'3\n'}
  for number, value in enumerate(_TENSORS.values()):
    contents[f'data/{number}'] = value.tobytes()
  contents.update(files)
  with zipfile.ZipFile(path, 'w', compression) as archive:
    for name, content in contents.items():
      if content is not None:
        archive.writestr(f'x/{name}', content)
  return os.fspath(path)


def _pickles(path, state=None, counts=(), end=None):
  """Writes the form of `torch.save` before 2020."""
  keys = [str(number) for number in range(len(_TENSORS))]
  data = b''.join(
    _pickled(value, legacy=True)
    for value in (
      0x1950A86A20F9469CFC6C,
      1001,
      {'little_endian': True},
      _state() if state is None else state,
      keys,
    )
  )
  for number, value in enumerate(_TENSORS.values()):
    count = dict(counts).get(number, value.size)
    data += struct.pack('<q', count) + value.tobytes()
  path.write_bytes(data[:end])
  return os.fspath(path)


@pytest.mark.parametrize('write', [_archive, _pickles])
def test_both_forms_are_read(write, tmp_path):
  values = state_dicts.read(write(tmp_path / 'x'))
  assert list(values) == list(_TENSORS)
  for name, value in _TENSORS.items():
    assert values[name].dtype == value.dtype
    np.testing.assert_array_equal(values[name], value)


def test_views_are_read_as_pytorch_sees_them(tmp_path):
  value = _TENSORS['conv.weight']
  view = _tensor('0', value, shape=(2, 3), strides=(1, 4), offset=5)
  path = _archive(tmp_path / 'x', _pickled({'view': view}))
  flat = value.ravel()
  expected = [[flat[5 + i + 4 * j] for j in range(3)] for i in range(2)]
  np.testing.assert_array_equal(state_dicts.read(path)['view'], expected)


def test_what_pytorch_writes_is_read(tmp_path):
  torch = pytest.importorskip('torch')
  tensors = {n: torch.from_numpy(v.copy()) for n, v in _TENSORS.items()}
  for is_new in (True, False):
    path = os.fspath(tmp_path / 'x')
    torch.save(tensors, path, _use_new_zipfile_serialization=is_new)
    values = state_dicts.read(path)
    for name, value in _TENSORS.items():
      np.testing.assert_array_equal(values[name], value)


def _refused(path, message=None):
  with pytest.raises(ValueError, match=message) as caught:
    state_dicts.read(path)
  assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize('write', [_archive, _pickles])
@pytest.mark.parametrize(
  'module, name',
  [
    ('os', 'system'),
    ('posix', 'system'),
    ('builtins', 'eval'),
    ('torch', 'load'),
    ('torch.serialization', '_open_file'),
    ('collections', 'namedtuple'),
  ],
)
def test_calls_are_refused_and_not_executed(write, module, name, tmp_path):
  canary = tmp_path / 'canary'
  state = {'a': _Call(module, name, f'touch {canary}')}
  # Python itself runs it, if the function is one of Python's.
  if (module, name) == ('os', 'system'):
    pickle.loads(_pickled(state))
    assert canary.exists()
    canary.unlink()
  data = _pickled(state) if write is _archive else state
  _refused(write(tmp_path / 'x', data), f'holds {module}.{name}, not only')
  assert not canary.exists()


def test_every_way_to_a_name_is_closed(tmp_path):
  """Protocol 4 names functions on its stack; older ones have INST and OBJ."""
  canary = tmp_path / 'canary'
  touch = f'touch {canary}'.encode()
  text = b'\x8c' + bytes([len(touch)]) + touch
  on_stack = b'\x80\x04\x8c\x02os\x8c\x06system\x93' + text + b'\x85R.'
  pickle.loads(on_stack)
  assert canary.exists()
  canary.unlink()
  _refused(_archive(tmp_path / 'x', on_stack), r'holds os\.system')
  instance = b'\x80\x02(X' + struct.pack('<I', len(touch)) + touch
  instance += b'ios\nsystem\n.'
  _refused(_archive(tmp_path / 'x', instance), 'the operation INST')
  _refused(
    _archive(tmp_path / 'x', pickle.dumps(pathlib.Path('x'), 2)), 'not only'
  )
  # An attribute of what is allowed is not reached by dots in its name.
  dotted = b'\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93.'
  _refused(_archive(tmp_path / 'x', dotted), r'OrderedDict\.fromkeys')
  assert not canary.exists()


@pytest.mark.parametrize('end', [0, 5, 20, 60, 300, -1, -200])
def test_truncated_pickles_are_refused(end, tmp_path):
  _refused(_pickles(tmp_path / 'x', end=end))


@pytest.mark.parametrize('end', [10, 100, 400, -1, -30])
def test_truncated_archives_are_refused(end, tmp_path):
  path = _archive(tmp_path / 'x')
  (tmp_path / 'x').write_bytes((tmp_path / 'x').read_bytes()[:end])
  _refused(path)


def test_storages_of_another_size_are_refused(tmp_path):
  path = _pickles(tmp_path / 'x', counts={1: 2**60}.items())
  _refused(path, 'storage 1 has another size')
  path = _archive(tmp_path / 'x', **{'data/1': b'1234'})
  _refused(path, 'storage 1 has another size')
  path = _archive(tmp_path / 'x', **{'data/1': None})
  _refused(path, 'x/data/1 is missing')


_BIAS = _TENSORS['norm.bias']


@pytest.mark.parametrize(
  'state, message',
  [
    ({'a': _tensor('1', _BIAS, 2**50, (2**50,))}, 'larger than the file'),
    ({'a': _tensor('1', _BIAS, -1)}, 'a storage of -1 numbers'),
    ({'a': _tensor('1', _BIAS, shape=(2**50,), strides=(0,))}, 'larger than'),
    ({'a': _tensor('1', _BIAS, shape=(2**50,))}, 'larger than its storage'),
    ({'a': _tensor('1', _BIAS, offset=1)}, 'larger than its storage'),
    ({'a': _tensor('1', _BIAS, offset=-1)}, 'a tensor of the shape'),
    ({'a': _tensor('1', _BIAS, strides=(-1,))}, 'a tensor of the shape'),
    ({'a': _tensor('1', _BIAS, strides=(1, 1))}, 'not a tensor'),
    ({'a': _tensor('1', _BIAS, shape=(1,) * 9)}, 'a tensor of the shape'),
    (
      {str(n): _tensor('0', _TENSORS['conv.weight']) for n in range(99)},
      'file',
    ),
    ({'a': 1}, 'not a dictionary of tensors: a is none'),
    ({1: _tensor('1', _BIAS)}, 'not a dictionary of tensors'),
    ({}, 'not a dictionary of tensors'),
    ([1], 'not a dictionary of tensors'),
    (
      {'a': _tensor('1', _BIAS), 'b': _tensor('1', _BIAS, size=3)},
      'storage 1 is declared twice',
    ),
  ],
)
def test_hostile_tensors_are_refused(state, message, tmp_path):
  tracemalloc.start()
  try:
    _refused(_archive(tmp_path / 'x', _pickled(state)), message)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
  finally:
    tracemalloc.stop()


def test_hostile_pickles_take_no_memory(tmp_path):
  """Each of a few bytes claims gigabytes, which Python would allocate."""
  for data in (
    b'\x80\x02}r\xff\xff\xff\x7f.',  # An entry of number 2 billion.
    b'\x80\x04\x8e' + struct.pack('<Q', 2**40) + b'.',  # A terabyte of text.
    b'\x80\x02X\xff\xff\xff\x7f.',
    b'\x80\x02\x8b\xff\xff\xff\x7f.',
  ):
    path = _archive(tmp_path / 'x', data)
    tracemalloc.start()
    try:
      _refused(path)
      assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
      tracemalloc.stop()


def test_compressed_archives_are_refused(tmp_path):
  path = _archive(
    tmp_path / 'x',
    compression=zipfile.ZIP_DEFLATED,
    **{'data/0': bytes(50_000_000)},
  )
  _refused(path, 'compressed archive')


def test_other_files_are_refused(tmp_path):
  _refused(_archive(tmp_path / 'x', **{'data.pkl': None}), 'without one data')
  _refused(_archive(tmp_path / 'x', byteorder=b'big'), 'not little-endian')
  (tmp_path / 'x').write_bytes(pickle.dumps({'a': 1}, 2))
  _refused(os.fspath(tmp_path / 'x'), 'not a file that torch.save has written')
  with pytest.raises(OSError):
    state_dicts.read(os.fspath(tmp_path / 'nothing'))
