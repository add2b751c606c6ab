import pathlib
import struct

import pytest
import tensorflow as tf

from efficientnet_advprop.data import tfrecords
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


def test_checksum_is_the_one_tensorflow_writes(path):
  header = path.read_bytes()[:12]
  (stored,) = struct.unpack('<I', header[8:])
  assert tfrecords._crc32c(header[:8]) == stored
  # The published check value of CRC-32C, masked.
  crc = 0xE3069283
  masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
  assert tfrecords._crc32c(b'123456789') == masked


def test_count_of_a_whole_file(path):
  assert tfrecords.count_records(str(path)) == (3, None)


def test_count_of_an_empty_file(tmp_path):
  (tmp_path / 'empty').touch()
  assert tfrecords.count_records(str(tmp_path / 'empty')) == (0, None)


# Records of 5, 0 and 12 bytes begin at 0, 21 and 37; the file has 65.
@pytest.mark.parametrize('size, count, problem', [
  (64, 2, 'record 2: the file ends 1 bytes too early'),
  (48, 2, 'record 2: the file ends inside its header'),
  (37, 2, None),
  (20, 0, 'record 0: the file ends 1 bytes too early'),
])  # fmt: skip
def test_count_of_a_cut_file(path, size, count, problem):
  path.write_bytes(path.read_bytes()[:size])
  expected = problem and f'{path}: {problem}'
  assert tfrecords.count_records(str(path)) == (count, expected)


def test_count_tells_a_damaged_length(path):
  _damage(path, 40)
  problem = f'{path}: record 2: its header is damaged'
  assert tfrecords.count_records(str(path)) == (2, problem)


def test_an_encoded_example_is_what_it_was_made_of():
  values = {'text': 'é', 'bytes': b'\xff', 'number': -3}
  example = tf.train.Example.FromString(tfrecords.encode_example(values))
  feature = example.features.feature
  assert set(feature) == set(values)
  assert feature['text'].bytes_list.value == ['é'.encode()]
  assert feature['bytes'].bytes_list.value == [b'\xff']
  assert feature['number'].int64_list.value == [-3]
  again = tfrecords.encode_example(dict(reversed(values.items())))
  assert again == tfrecords.encode_example(values)
