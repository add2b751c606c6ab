import json
import os
import struct

import numpy as np
import pytest

from efficientnet_advprop.weights import safetensors

_TENSORS = {
  'a.weight': np.arange(6, dtype=np.float32).reshape(2, 3),
  'count': np.array(7, np.int64),
  'half': np.array([0.5, -2.0], np.float16),
  'none': np.zeros([0, 3], np.float32),
}
_TYPES = {'float32': 'F32', 'int64': 'I64', 'float16': 'F16'}


def _write(path, tensors=None, **changes):
  """Writes a file by the published description of the format."""
  header, data = {'__metadata__': {'format': 'pt'}}, b''
  for name, value in (_TENSORS if tensors is None else tensors).items():
    end = len(data) + value.nbytes
    header[name] = {
      'dtype': _TYPES[value.dtype.name],
      'shape': list(value.shape),
      'data_offsets': [len(data), end],
    }
    header[name].update(changes.get(name, {}))
    data += value.tobytes()
  text = json.dumps(header).encode()
  path.write_bytes(struct.pack('<Q', len(text)) + text + data)
  return os.fspath(path)


def test_all_tensors_are_read(tmp_path):
  values = safetensors.read(_write(tmp_path / 'x'))
  assert list(values) == list(_TENSORS)
  for name, value in _TENSORS.items():
    assert values[name].dtype == value.dtype
    np.testing.assert_array_equal(values[name], value)


def test_bfloat16_becomes_float32(tmp_path):
  raw = np.array([0x3F80, 0xC040], np.uint16).view(np.float16)  # 1 and -3
  path = _write(tmp_path / 'x', {'b': raw}, b={'dtype': 'BF16'})
  np.testing.assert_array_equal(safetensors.read(path)['b'], [1, -3])


def test_the_package_writes_what_is_read(tmp_path):
  package = pytest.importorskip('safetensors.numpy')
  package.save_file(_TENSORS, tmp_path / 'x')
  values = safetensors.read(os.fspath(tmp_path / 'x'))
  for name, value in _TENSORS.items():
    np.testing.assert_array_equal(values[name], value)


def _claims(length, text=b'{}', data=b''):
  return struct.pack('<Q', length) + text + data


@pytest.mark.parametrize(
  'content, message',
  [
    (b'', 'ends within the length'),
    (b'1234567', 'ends within the length'),
    (_claims(2**63), 'claims 9223372036854775808 bytes; the file has 2 more'),
    (_claims(3), 'claims 3 bytes'),
    (_claims(2, b'{]'), 'not JSON'),
    (_claims(2, b'\xff{'), 'not JSON'),
    (_claims(200_000, b'[' * 200_000), 'not JSON'),
    (_claims(2, b'[]'), 'not a dictionary'),
    (_claims(2, b'{}'), 'no tensors'),
    (_claims(14, b'{"a":1,"a":2} '), 'names a tensor twice'),
  ],
)
def test_damaged_headers_are_refused(content, message, tmp_path):
  path = tmp_path / 'x'
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message) as caught:
    safetensors.read(os.fspath(path))
  assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(half=dict(data_offsets=[0, 4])), 'overlaps another tensor'),
    (dict(half=dict(data_offsets=[28, 32])), 'half overlaps another'),
    (dict(count=dict(data_offsets=[24, 8])), 'claims the bytes 24 to 8'),
    (dict(count=dict(shape=[2**40])), 'its shape needs 8796093022208'),
    (dict(count=dict(shape=[-1])), 'describes count wrongly'),
    (dict(count=dict(shape=[1.0])), 'describes count wrongly'),
    (dict(count=dict(shape=[1] * 9)), 'describes count wrongly'),
    (dict(count=dict(dtype='F8')), 'describes count wrongly'),
    (dict(count=dict(dtype=[])), 'describes count wrongly'),
    (dict(count=dict(data_offsets=[0])), 'describes count wrongly'),
    (dict(half=dict(shape=[0], data_offsets=[0, 0])), 'none follows a gap'),
  ],
)
def test_hostile_entries_are_refused(changes, message, tmp_path):
  path = _write(tmp_path / 'x', **changes)
  with pytest.raises(ValueError, match=message) as caught:
    safetensors.read(path)
  assert len(str(caught.value).splitlines()) == 1


def test_gaps_and_truncation_are_refused(tmp_path):
  path = _write(tmp_path / 'x')
  content = (tmp_path / 'x').read_bytes()
  (tmp_path / 'x').write_bytes(content[:-1])
  with pytest.raises(ValueError, match='the file has 35'):
    safetensors.read(path)
  (tmp_path / 'x').write_bytes(content + b'\0')
  with pytest.raises(ValueError, match='1 bytes belong to no tensor'):
    safetensors.read(path)
  two = dict.fromkeys(('a', 'b', 'c'), _TENSORS['half'])
  changes = dict(b=dict(shape=[0], data_offsets=[0, 0]))
  with pytest.raises(ValueError, match='c follows a gap'):
    safetensors.read(_write(tmp_path / 'x', two, **changes))
