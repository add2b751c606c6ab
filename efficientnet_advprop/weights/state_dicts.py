"""Reads the tensors of files that `torch.save` has written, without PyTorch.

Such a file is a pickle with raw numbers next to it. A pickle can call any
function of Python. This reader interprets only the operations that describe a
dictionary of tensors, and knows only the names that PyTorch gives to their
parts. It refuses a file that holds anything else, and calls nothing that the
file names.

There are two forms. Since 2020 the file is a zip archive of `<name>/data.pkl`
and one file `<name>/data/<key>` of raw numbers for each storage. Before, it was
five pickles in a row (magic number, protocol version, sizes of types, the
dictionary, the list of storages), then an int64 count and the raw numbers of
each storage. Source: `torch/serialization.py` of PyTorch.
"""

import collections
from collections.abc import Callable
import io
import math
import os
import pickle
import pickletools
import struct
from typing import Any, BinaryIO, NamedTuple
import zipfile

import numpy as np

# Bytes of the pickles of a file. Those of EfficientNet-B8 take under 1 MB.
_MOST_PICKLED = 16 << 20
_PICKLE = 'data.pkl'
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
# The types of numbers by the names of PyTorch's storages.
_TYPES = {
  'FloatStorage': '<f4',
  'DoubleStorage': '<f8',
  'HalfStorage': '<f2',
  'LongStorage': '<i8',
  'IntStorage': '<i4',
  'ShortStorage': '<i2',
  'CharStorage': 'i1',
  'ByteStorage': 'u1',
  'BoolStorage': '?',
}
# The operations of a pickle that build numbers, text and containers; REDUCE and
# BUILD apply only to what `_Unpickler.find_class` returns.
_OPERATIONS = """
  PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1
  BINFLOAT BINUNICODE SHORT_BINUNICODE EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
  EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS BINPUT LONG_BINPUT
  MEMOIZE BINGET LONG_BINGET GLOBAL STACK_GLOBAL BINPERSID REDUCE BUILD
"""
# What reading a damaged pickle raises.
_DAMAGE = (
  pickle.UnpicklingError,
  ArithmeticError,
  AttributeError,
  EOFError,
  LookupError,
  MemoryError,
  TypeError,
  struct.error,
)


class _Storage(NamedTuple):
  """Raw numbers that tensors are views of."""

  key: str
  dtype: np.dtype
  size: int


class _Tensor(NamedTuple):
  """A view of a storage; offset and strides count elements."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def read(path: str) -> dict[str, np.ndarray]:
  """Reads a state dict, in either form.

  Args:
    path: of the file.

  Returns:
    Tensors by their names, in the types of the file.

  Raises:
    ValueError: the file is damaged, or holds something other than tensors; one
      line. Nothing of the file has been executed.
    OSError: the file cannot be opened.
  """
  try:
    if zipfile.is_zipfile(path):
      return _read_archive(path)
    return _read_pickles(path)
  except (zipfile.BadZipFile, RuntimeError) as error:
    raise ValueError(f'damaged archive: {error}') from error
  except (UnicodeDecodeError, *_DAMAGE) as error:
    raise ValueError(f'damaged state dict: {error}') from error


def _read_archive(path: str) -> dict[str, np.ndarray]:
  with zipfile.ZipFile(path) as archive:
    entries = {entry.filename: entry for entry in archive.infolist()}
    # PyTorch never compresses. What is not compressed cannot grow on reading.
    total = sum(entry.file_size for entry in entries.values())
    stored = all(
      e.compress_type == zipfile.ZIP_STORED for e in entries.values()
    )
    if not stored or total > os.path.getsize(path):
      raise ValueError('a compressed archive, which torch.save never writes')
    roots = [n[: -len(_PICKLE)] for n in entries if n.endswith(_PICKLE)]
    if len(roots) != 1:
      raise ValueError(f'an archive without one {_PICKLE}')
    root = roots[0]
    order = f'{root}byteorder'
    if order in entries and archive.read(order) != b'little':
      raise ValueError('its numbers are not little-endian')
    if entries[f'{root}{_PICKLE}'].file_size > _MOST_PICKLED:
      raise ValueError(f'{_PICKLE} has more than {_MOST_PICKLED} bytes')
    pickles = io.BytesIO(archive.read(f'{root}{_PICKLE}'))

    def numbers(storage: _Storage) -> bytes:
      name = f'{root}data/{storage.key}'
      if name not in entries:
        raise ValueError(f'damaged archive: {name} is missing')
      return archive.read(name)

    return _arrays(_load(pickles), numbers, total)


def _read_pickles(path: str) -> dict[str, np.ndarray]:
  with open(path, 'rb') as file:
    head = io.BytesIO(file.read(_MOST_PICKLED))
    if _load(head) != _MAGIC_NUMBER or _load(head) != _PROTOCOL_VERSION:
      raise ValueError('not a file that torch.save has written')
    if _load(head)['little_endian'] is not True:
      raise ValueError('its numbers are not little-endian')
    found: dict[str, _Storage] = {}
    tensors = _load(head, found)
    keys = _load(head)
    places: dict[str, int] = {}
    position, total = head.tell(), os.path.getsize(path)
    for key in keys:
      storage = found[key]
      file.seek(position)
      if struct.unpack('<q', file.read(8)) != (storage.size,):
        raise ValueError(f'damaged: storage {key} has another size')
      places[key] = position + 8
      position += 8 + storage.size * storage.dtype.itemsize

    def numbers(storage: _Storage) -> bytes:
      file.seek(places[storage.key])
      return _exactly(file, storage.size * storage.dtype.itemsize, total)

    return _arrays(tensors, numbers, total)


def _exactly(file: BinaryIO, size: int, total: int) -> bytes:
  """Reads that many bytes, if the file of `total` bytes can hold them."""
  data = file.read(size) if size <= total else b''
  if len(data) < size:
    raise ValueError('the file ends too early')
  return data


class _Unpickler(pickle.Unpickler):
  """Builds dictionaries of tensors, and nothing else."""

  def __init__(self, file: BinaryIO, found: dict[str, _Storage]):
    super().__init__(file)
    self._found = found

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) == ('collections', 'OrderedDict'):
      return collections.OrderedDict
    if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
      return _tensor
    if (module, name) == ('torch._utils', '_rebuild_parameter'):
      return _parameter
    if module == 'torch' and name in _TYPES:
      return np.dtype(_TYPES[name])
    raise ValueError(_refusal(f'{module}.{name}'))

  def persistent_load(self, reference: Any) -> _Storage:
    kind, dtype, key, _, size, *view = reference
    if kind != 'storage' or any(part is not None for part in view):
      raise ValueError('a storage that is a part of another one')
    if not isinstance(dtype, np.dtype) or not isinstance(key, str):
      raise ValueError('damaged: not a storage')
    if not _is_count(size):
      raise ValueError(f'damaged: a storage of {size!r} numbers')
    storage = _Storage(key, dtype, size)
    if self._found.setdefault(key, storage) != storage:
      raise ValueError(f'damaged: storage {key} is declared twice')
    return storage


def _refusal(name: str) -> str:
  return f'it holds {name}, not only tensors; nothing of it was executed'


def _is_count(value: Any) -> bool:
  return type(value) is int and value >= 0


def _tensor(
  storage: Any, offset: Any, shape: Any, strides: Any, *_: Any
) -> _Tensor:
  """Stands for `torch._utils._rebuild_tensor_v2`."""
  numbers = (offset, *shape, *strides)
  if not isinstance(storage, _Storage) or len(shape) != len(strides):
    raise ValueError('damaged: not a tensor')
  if not all(_is_count(number) for number in numbers) or len(shape) > 8:
    raise ValueError(f'damaged: a tensor of the shape {shape!r}')
  return _Tensor(storage, offset, shape, strides)


def _parameter(tensor: Any, *_: Any) -> Any:
  """Stands for `torch._utils._rebuild_parameter`."""
  return tensor


def _load(file: BinaryIO, found: Any = None) -> Any:
  """Reads the pickle at the position of a file, and moves behind it.

  Args:
    file: of at most `_MOST_PICKLED` bytes.
    found: a dictionary that receives the storages by their keys.
  """
  start = file.tell()
  allowed = set(_OPERATIONS.split())
  argument: Any
  for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
    if operation.name not in allowed:
      raise ValueError(_refusal(f'the operation {operation.name}'))
    if operation.name == 'GLOBAL':
      _check_global(argument)
    # Python allocates as much as the largest number of an entry asks for.
    if operation.name == 'LONG_BINPUT' and argument > count:
      raise ValueError('damaged pickle: an entry beyond its end')
  end = file.tell()
  file.seek(start)
  result = _Unpickler(file, {} if found is None else found).load()
  file.seek(end)
  return result


def _check_global(argument: str) -> None:
  """Refuses the names that `_Unpickler.find_class` does not know."""
  module, _, name = argument.partition(' ')
  _Unpickler(io.BytesIO(), {}).find_class(module, name)


def _arrays(
  tensors: Any, numbers: Callable[[_Storage], bytes], limit: int
) -> dict[str, np.ndarray]:
  """Reads the numbers of tensors.

  Args:
    tensors: what the pickle holds.
    numbers: reads the bytes of a storage.
    limit: of the bytes of all tensors together, which is the file's size.
  """
  if not isinstance(tensors, dict) or not tensors:
    raise ValueError('not a dictionary of tensors')
  arrays = {}
  for name, tensor in tensors.items():
    if not isinstance(name, str) or not isinstance(tensor, _Tensor):
      raise ValueError(f'not a dictionary of tensors: {str(name)[:80]} is none')
    storage, shape = tensor.storage, tensor.shape
    last = sum((n - 1) * s for n, s in zip(shape, tensor.strides))
    is_inside = tensor.offset + last < storage.size or 0 in shape
    if not is_inside or math.prod(shape) > storage.size:
      raise ValueError(f'damaged: {name[:80]} is larger than its storage')
    # No network here shares numbers between tensors. A small file that does
    # could fill any memory.
    limit -= storage.size * storage.dtype.itemsize
    if limit < 0:
      raise ValueError('its tensors are larger than the file')
    data = numbers(storage)
    if len(data) != storage.size * storage.dtype.itemsize:
      raise ValueError(f'damaged: storage {storage.key} has another size')
    flat = np.frombuffer(data, storage.dtype)
    strides = [stride * flat.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(
      flat[tensor.offset :], shape, strides
    )
    arrays[name] = np.array(view)
  return arrays
