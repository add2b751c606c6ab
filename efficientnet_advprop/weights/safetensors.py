"""Reads .safetensors files: numbers by their names, without another package.

A file is an 8-byte little-endian length, a header of that length in JSON (name
-> dtype, shape, data_offsets) and the raw numbers, without gaps. Source:
https://github.com/huggingface/safetensors, "Format". The format is so small
that a reader of our own is shorter than the handling of an optional package,
and checks what a hostile file may declare before it takes any memory for it.
"""

import json
import math
import os
import struct
from typing import Any

import numpy as np

# Bytes of the header. EfficientNet-B8's takes about 100 kB.
_LONGEST_HEADER = 10 << 20
_TYPES = {
  'F64': '<f8',
  'F32': '<f4',
  'F16': '<f2',
  'BF16': '<u2',  # The upper half of a float32.
  'I64': '<i8',
  'I32': '<i4',
  'I16': '<i2',
  'I8': 'i1',
  'U8': 'u1',
  'BOOL': '?',
}


def is_safetensors(start: bytes) -> bool:
  """Whether a file whose first bytes are `start` claims to be of this kind."""
  return len(start) > 8 and start[8:9] == b'{'


def read(path: str) -> dict[str, np.ndarray]:
  """Reads all tensors of a file.

  Args:
    path: of the file.

  Returns:
    Tensors by their names, in the types of the file; bfloat16 as float32.

  Raises:
    ValueError: the file is damaged, or not of this kind; one line.
    OSError: the file cannot be opened.
  """
  size = os.path.getsize(path)
  with open(path, 'rb') as file:
    start = file.read(8)
    if len(start) < 8:
      raise ValueError('the file ends within the length of its header')
    (length,) = struct.unpack('<Q', start)
    if length > min(size - 8, _LONGEST_HEADER):
      raise ValueError(
        f'its header claims {length} bytes; the file has {size - 8} more, and'
        f' {_LONGEST_HEADER} are allowed'
      )
    entries = _header(file.read(length))
    data_size = size - 8 - length
    _check_offsets(entries, data_size)
    arrays = {}
    for name, entry in entries.items():
      begin, end = entry['data_offsets']
      file.seek(8 + length + begin)
      data = np.frombuffer(file.read(end - begin), _TYPES[entry['dtype']])
      if entry['dtype'] == 'BF16':
        data = (data.astype(np.uint32) << 16).view(np.float32)
      arrays[name] = data.reshape(entry['shape'])
  return arrays


def _header(text: bytes) -> dict[str, Any]:
  """The entries of the tensors, with fields of the right types."""

  def without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
      raise ValueError('its header names a tensor twice')
    return result

  try:
    header = json.loads(text, object_pairs_hook=without_repetition)
  except (RecursionError, UnicodeDecodeError, json.JSONDecodeError) as error:
    raise ValueError(f'its header is not JSON: {error}') from error
  if not isinstance(header, dict):
    raise ValueError('its header is not a dictionary')
  header.pop('__metadata__', None)
  if not header:
    raise ValueError('it holds no tensors')
  for name, entry in header.items():
    if not _is_entry(entry):
      raise ValueError(f'its header describes {name[:80]} wrongly')
  return header


def _is_entry(entry: Any) -> bool:
  if not isinstance(entry, dict):
    return False
  shape: Any = entry.get('shape')
  offsets: Any = entry.get('data_offsets')
  return (
    entry.get('dtype') in tuple(_TYPES)
    and _are_counts(shape)
    and _are_counts(offsets)
    and len(shape) <= 8
    and len(offsets) == 2
  )


def _are_counts(values: Any) -> bool:
  return isinstance(values, list) and all(
    type(value) is int and value >= 0 for value in values
  )


def _check_offsets(entries: dict[str, Any], data_size: int) -> None:
  """Refuses tensors that overlap, leave gaps or do not fit their sizes."""
  for name, entry in entries.items():
    begin, end = entry['data_offsets']
    expected = (
      math.prod(entry['shape']) * np.dtype(_TYPES[entry['dtype']]).itemsize
    )
    if end - begin != expected or end > data_size:
      raise ValueError(
        f'{name[:80]} claims the bytes {begin} to {end}; its shape needs'
        f' {expected}, and the file has {data_size}'
      )
  order = sorted(
    ((*entry['data_offsets'], name) for name, entry in entries.items())
  )
  ends = [0, *(end for _, end, _ in order)]
  for end, (begin, _, name) in zip(ends, order):
    if begin != end:
      fault = 'overlaps another tensor' if begin < end else 'follows a gap'
      raise ValueError(f'{name[:80]} {fault}')
  if ends[-1] != data_size:
    raise ValueError(f'{data_size - ends[-1]} bytes belong to no tensor')
