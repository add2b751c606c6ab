"""TFRecord files without a data set around them: counting, and encoding.

Counting reads headers alone, so that 150 GB take seconds. TensorFlow reads a
file that was cut at a record's boundary, or inside the 12 bytes of a header,
without any error; `count_records` notices the second.
"""

from collections.abc import Mapping
import os
import struct
from typing import Optional, Union

import tensorflow as tf

HEADER_BYTES, FOOTER_BYTES = 12, 4  # Length and CRC; CRC of the payload.


def _crc32c(data: bytes) -> int:
  """Returns the Castagnoli checksum, masked as TFRecord files store it."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc ^= byte
    for _ in range(8):
      crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
  crc ^= 0xFFFFFFFF
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def count_records(path: str) -> tuple[int, Optional[str]]:
  """Counts the records of a local file by its headers.

  Returns:
    The number of whole records before the end or the first damaged header,
    and what is wrong with the next one, if anything is.
  """
  size, offset, count = os.path.getsize(path), 0, 0
  with open(path, 'rb', buffering=0) as file:
    while offset < size:
      header = os.pread(file.fileno(), HEADER_BYTES, offset)
      where = f'{path}: record {count}'
      if len(header) < HEADER_BYTES:
        return count, f'{where}: the file ends inside its header'
      (length,) = struct.unpack_from('<Q', header)
      end = offset + HEADER_BYTES + length + FOOTER_BYTES
      if end > size:
        (checksum,) = struct.unpack_from('<I', header, 8)
        if _crc32c(header[:8]) != checksum:
          return count, f'{where}: its header is damaged'
        return count, f'{where}: the file ends {end - size} bytes too early'
      offset, count = end, count + 1
  return count, None


def _feature(value: Union[int, str, bytes]) -> tf.train.Feature:
  if isinstance(value, int):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
  # File names are bytes, which need not be UTF-8.
  value = os.fsencode(value) if isinstance(value, str) else value
  return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def encode_example(values: Mapping[str, Union[int, str, bytes]]) -> bytes:
  """Serializes a tf.Example with one value under each key.

  The same values give the same bytes.

  Args:
    values: integers become int64 features, strings and bytes become bytes
      features.
  """
  features = {key: _feature(value) for key, value in values.items()}
  record = tf.train.Example(features=tf.train.Features(feature=features))
  return record.SerializeToString(deterministic=True)
