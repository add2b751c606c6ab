import pathlib

import pytest
import tensorflow as tf

from efficientnet_advprop.data import records
from efficientnet_advprop.testing import tiny_data

_PAYLOADS = [b'first', b'', b'third record']


@pytest.fixture(name='path')
def _path(tmp_path):
  path = tmp_path / 'shard'
  tiny_data.write_shard(path, _PAYLOADS)
  return path


def _damage(path: pathlib.Path, offset: int) -> None:
  content = bytearray(path.read_bytes())
  content[offset] ^= 1
  path.write_bytes(content)


def _read(path, count=3, skip=0):
  source = records.Source(
    'train', (str(path),), 3, count, skips=(skip,), counts=(count,)
  )
  found = records.read(source, tf.data.Dataset.range(1))
  return [
    (record['file'].decode(), int(record['record']), record['data'])
    for record in found.as_numpy_iterator()
  ]


def test_read_names_file_and_record(path):
  expected = [(str(path), i, data) for i, data in enumerate(_PAYLOADS)]
  assert _read(path) == expected
  assert _read(path, count=1, skip=1) == expected[1:2]


def test_lost_records_keep_their_places(path):
  _damage(path, 35)  # The checksum of the empty record.
  assert [data for _, _, data in _read(path)] == [b'first', b'\0', b'\0']
