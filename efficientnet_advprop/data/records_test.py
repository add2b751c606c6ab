import pathlib
import struct

import pytest
import tensorflow as tf

from efficientnet_advprop.base import errors
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
    'train', (str(path),), 3, skips=(skip,), counts=(count,)
  )
  found = records.read(source, tf.data.Dataset.range(1))
  return [
    (record['file'].decode(), int(record['record']), record['data'])
    for record in found.as_numpy_iterator()
  ]


def test_checksum_is_the_one_tensorflow_writes(path):
  header = path.read_bytes()[:12]
  (stored,) = struct.unpack('<I', header[8:])
  assert records._crc32c(header[:8]) == stored
  # The published check value of CRC-32C, masked.
  crc = 0xE3069283
  masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
  assert records._crc32c(b'123456789') == masked


def test_count_of_a_whole_file(path):
  assert records.count_records(str(path)) == (3, None)


def test_count_of_an_empty_file(tmp_path):
  (tmp_path / 'empty').touch()
  assert records.count_records(str(tmp_path / 'empty')) == (0, None)


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
  assert records.count_records(str(path)) == (count, expected)


def test_count_tells_a_damaged_length(path):
  _damage(path, 40)
  problem = f'{path}: record 2: its header is damaged'
  assert records.count_records(str(path)) == (2, problem)


def test_read_names_file_and_record(path):
  expected = [(str(path), i, data) for i, data in enumerate(_PAYLOADS)]
  assert _read(path) == expected
  assert _read(path, count=1, skip=1) == expected[1:2]


def test_lost_records_keep_their_places(path):
  _damage(path, 35)  # The checksum of the empty record.
  assert [data for _, _, data in _read(path)] == [b'first', b'\0', b'\0']


def test_attempt_takes_the_first_that_works():
  def fail_below(limit):
    def check(value):
      stop = tf.debugging.Assert(value >= limit, [value])
      with tf.control_dependencies([stop]):
        return tf.fill([], limit)

    return check

  stages = [fail_below(limit) for limit in (20, 10, 0)]
  dataset = tf.data.Dataset.from_tensor_slices([15, 25, 5])
  dataset = dataset.flat_map(lambda value: records.attempt(value, *stages))
  assert list(dataset.as_numpy_iterator()) == [10, 20, 0]


def test_explanation_is_the_problem_unescaped():
  problem = 'folder "ü\\"/it\'s: record 3: the label 0 is not in 1..3'

  @tf.function
  def fail(condition):
    with tf.control_dependencies([records.require(condition, problem)]):
      return tf.constant(0)

  with pytest.raises(tf.errors.InvalidArgumentError) as caught:
    fail(tf.constant(False))
  explained = records.explain(caught.value)
  assert isinstance(explained, errors.DataError)
  assert str(explained) == problem
