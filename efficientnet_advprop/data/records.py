r"""Encoded records: where a split keeps them, reading them, what is wrong.

A record is a dictionary of scalar tensors: `file` (string), `record` (int64,
its place in the file), `data` (string: a serialized tf.Example, or nothing
where the file itself is the image; `\\0` marks a record that cannot be read)
and `label` (int64, where the file does not hold it).
"""

import dataclasses
import os
import re
import struct
from typing import Any, Callable, Optional

import tensorflow as tf

from efficientnet_advprop.base import errors

Record = dict[str, tf.Tensor]

# Images with a shorter side hold nothing to learn from, ones with a longer
# side need gigabytes when decoded. ImageNet spans 20 to 9,331 pixels.
MIN_SIDE = 8
MAX_SIDE = 16_384

_UNREADABLE = b'\0'
_HEADER_BYTES, _FOOTER_BYTES = 12, 4  # Length and CRC; CRC of the payload.
_READ_BUFFER_BYTES = 1 << 20
_DAMAGED = 'damaged or missing (a flipped bit, or a file that was cut short)'
# What `explain` looks for in the message of an error.
_BEGIN, _END = '<<bad data: ', '>>'


@dataclasses.dataclass(frozen=True)
class Source:
  """The files of a split and how a record is written in them.

  Attributes:
    name: the split, for messages.
    files: TFRecord shards, or images.
    skips: how many records at the start of each file belong to other splits.
    counts: how many records of each file belong to the split. None if that is
      too costly to count; they are then counted while being read.
    sizes: bytes in each file; only where `counts` is None.
    labels: of each file, where each is an image. None for TFRecords.
    num_classes: how many labels there are.
    first_label: the number by which the files call the first class.
    image_key: the encoded image's feature in a tf.Example.
    label_key: the label's feature in a tf.Example.
    side: height and width of every image, in pixels, where they are to be used
      as they are stored. None: any, to be cropped and resized.
    cue_key: the feature of a second class that the image points to; None where
      nobody asks for it.
  """

  name: str
  files: tuple[str, ...]
  num_classes: int
  skips: tuple[int, ...] = ()
  counts: Optional[tuple[int, ...]] = None
  sizes: tuple[int, ...] = ()
  labels: Optional[tuple[int, ...]] = None
  first_label: int = 1
  image_key: str = 'image/encoded'
  label_key: str = 'image/class/label'
  side: Optional[int] = None
  cue_key: Optional[str] = None


# --- Counting ---------------------------------------------------------------


def _crc32c(data: bytes) -> int:
  """The Castagnoli checksum, masked as TFRecord files store it."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc ^= byte
    for _ in range(8):
      crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
  crc ^= 0xFFFFFFFF
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def count_records(path: str) -> tuple[int, Optional[str]]:
  """Counts a local TFRecord file by its headers; payloads are not read.

  Returns:
    The number of whole records before the end or the first damaged header,
    and what is wrong with the next one, if anything is.
  """
  size, offset, count = os.path.getsize(path), 0, 0
  with open(path, 'rb', buffering=0) as file:
    while offset < size:
      header = os.pread(file.fileno(), _HEADER_BYTES, offset)
      where = f'{path}: record {count}'
      if len(header) < _HEADER_BYTES:
        return count, f'{where}: the file ends inside its header'
      (length,) = struct.unpack_from('<Q', header)
      end = offset + _HEADER_BYTES + length + _FOOTER_BYTES
      if end > size:
        (checksum,) = struct.unpack_from('<I', header, 8)
        if _crc32c(header[:8]) != checksum:
          return count, f'{where}: its header is damaged'
        return count, f'{where}: the file ends {end - size} bytes too early'
      offset, count = end, count + 1
  return count, None


# --- Reading ----------------------------------------------------------------


def _read_counted(
  path: tf.Tensor, skip: tf.Tensor, count: tf.Tensor
) -> tf.data.Dataset:
  """Exactly `count` records; those that cannot be read are marked.

  So one damaged file moves no other record to another place in the order.
  """
  found = tf.data.TFRecordDataset(path, buffer_size=_READ_BUFFER_BYTES)
  lost = tf.data.Dataset.from_tensor_slices([_UNREADABLE]).repeat()
  # TensorFlow gives up a file at the first damaged record.
  data = found.ignore_errors().concatenate(lost).skip(skip)
  return tf.data.Dataset.zip((tf.data.Dataset.range(count), data))


def _read_uncounted(path: tf.Tensor, size: tf.Tensor) -> tf.data.Dataset:
  """All records, and a marked one unless they make up the file's size."""

  def add_size(read: tf.Tensor, data: tf.Tensor) -> Any:
    length = tf.cast(tf.strings.length(data), tf.int64)
    return read + _HEADER_BYTES + length + _FOOTER_BYTES, (data, read)

  found = tf.data.TFRecordDataset(path, buffer_size=_READ_BUFFER_BYTES)
  end = tf.data.Dataset.from_tensor_slices([_UNREADABLE])
  data = found.ignore_errors().concatenate(end)
  data = data.scan(tf.constant(0, tf.int64), add_size)
  data = data.filter(lambda _, read: read != size)
  return data.map(lambda data, _: data).enumerate()


def read(source: Source, indices: tf.data.Dataset) -> tf.data.Dataset:
  """Reads files of a source, several at a time, in an order that never varies.

  Args:
    source: whose files.
    indices: int64, which of its files, in order.

  Returns:
    Records. Images that are files of their own are not read yet.
  """
  none = tf.constant(-1, tf.int64)
  zeros = (0,) * len(source.files)
  with tf.init_scope():  # A million file names would burden a traced function.
    files = tf.constant(source.files)
    labels = tf.constant(source.labels or zeros, tf.int64)
    sizes = tf.constant(source.sizes or zeros, tf.int64)
    skips = tf.constant(source.skips or zeros, tf.int64)
    counts = tf.constant(source.counts or zeros, tf.int64)
  if source.labels is not None:

    def name_image(index: tf.Tensor) -> Record:
      file, zero = files[index], tf.constant(0, tf.int64)
      return {'file': file, 'record': zero, 'data': '', 'label': labels[index]}

    return indices.map(name_image)

  def read_file(index: tf.Tensor) -> tf.data.Dataset:
    file, skip = files[index], skips[index]
    if source.counts is None:
      data = _read_uncounted(file, sizes[index])
    else:
      data = _read_counted(file, skip, counts[index])
    return data.map(
      lambda i, data: {
        'file': file,
        'record': skip + i,
        'data': data,
        'label': none,
      }
    )

  return indices.interleave(
    read_file,
    cycle_length=min(16, len(source.files)),
    block_length=1,
    num_parallel_calls=tf.data.AUTOTUNE,
    deterministic=True,
  )


def exactly(dataset: tf.data.Dataset, count: int, name: str) -> tf.data.Dataset:
  """The records of a whole split, with marked ones if there are not `count`.

  A missing record is marked, a surplus one takes the mark's place: either ends
  the reading with an error that names the split.
  """
  missing = {
      'file': name, 'record': tf.constant(-1, tf.int64), 'data': _UNREADABLE,
      'label': tf.constant(-1, tf.int64),
  }  # fmt: skip
  one = {key: tf.expand_dims(value, 0) for key, value in missing.items()}
  filler = tf.data.Dataset.from_tensor_slices(one).repeat(count)

  def check(index: tf.Tensor, record: Record) -> Record:
    surplus = index >= count
    return {k: tf.where(surplus, missing[k], record[k]) for k in missing}

  padded = dataset.concatenate(filler).enumerate()
  real = padded.take_while(lambda i, r: (i < count) | (r['record'] >= 0))
  return real.map(check)


# --- Understanding ----------------------------------------------------------


def _example(
  source: Source, record: Record, defaults: tuple[Any, Any]
) -> tuple[tf.Tensor, tf.Tensor]:
  """The encoded image and its label, int64, from 0 for the first class."""
  if source.labels is not None:
    return tf.io.read_file(record['file']), record['label']
  features = {
    source.image_key: tf.io.FixedLenFeature([], tf.string, defaults[0]),
    source.label_key: tf.io.FixedLenFeature([], tf.int64, defaults[1]),
  }
  example = tf.io.parse_single_example(record['data'], features)
  label = example[source.label_key] - source.first_label
  return example[source.image_key], label


def _cue(source: Source, record: Record, default: Optional[int]) -> tf.Tensor:
  """The class of the cue, int64, from 0 for the first one."""
  features = {source.cue_key: tf.io.FixedLenFeature([], tf.int64, default)}
  example = tf.io.parse_single_example(record['data'], features)
  return example[source.cue_key] - source.first_label


def _given(condition: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
  with tf.control_dependencies([tf.debugging.Assert(condition, ['-'])]):
    return tf.identity(value)


def _allowed_sides(source: Source) -> tuple[int, int]:
  if source.side is not None:
    return source.side, source.side
  return MIN_SIDE, MAX_SIDE


def _are_allowed(source: Source, shape: tf.Tensor) -> tf.Tensor:
  low, high = _allowed_sides(source)
  return tf.reduce_all((shape[:2] >= low) & (shape[:2] <= high))


def parse(
  source: Source,
  image_shape: Callable[[tf.Tensor], tf.Tensor],
  record: Record,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
  """Returns a record's encoded image, that image's shape, and the label.

  The label is int32 in [0, num_classes). An error says only that something is
  wrong; `findings` tells what.

  Args:
    source: where the record comes from.
    image_shape: gives height, width and channels of an encoded image.
    record: what `read` yields.
  """
  encoded, label = _example(source, record, (None, None))
  shape = image_shape(encoded)
  is_class = (label >= 0) & (label < source.num_classes)
  shape = _given(is_class & _are_allowed(source, shape), shape)
  return encoded, shape, tf.cast(label, tf.int32)


def parse_cue(source: Source, record: Record) -> tf.Tensor:
  """Returns the class that a record's cue points to.

  An int32 in [0, num_classes); errors are like those of `parse`.

  Args:
    source: where the record comes from, with a `cue_key`.
    record: what `read` yields.
  """
  label = _cue(source, record, None)
  is_class = (label >= 0) & (label < source.num_classes)
  return tf.cast(_given(is_class, label), tf.int32)


def attempt(value: Any, *functions: Callable[[Any], Any]) -> tf.data.Dataset:
  """The result of the first of `functions` that does not fail on `value`.

  This is how a tf.data function catches an error. All results must have the
  same types and shapes.

  Returns:
    A dataset of one element.
  """
  # Built of such operations only as op determinism runs in parallel: those
  # exclude Dataset.from_tensors and get_single_element.
  batch = tf.nest.map_structure(lambda x: tf.expand_dims(x, 0), value)
  one = tf.data.Dataset.from_tensor_slices(batch)
  results = one.map(functions[0])
  for function in functions[1:]:
    results = results.ignore_errors().concatenate(one.map(function))
  return results.take(1)


def findings(
  source: Source, image_shape: Callable[[tf.Tensor], tf.Tensor]
) -> list[Callable[[Record], tf.Tensor]]:
  """What may be wrong with a record: for `attempt`, each fails if it is not.

  Returns:
    Functions from a record to a string: `<file>: record <n>: <what>`.
  """
  first, last = source.first_label, source.first_label + source.num_classes - 1
  as_string = tf.strings.as_string

  def located(record: Record, *what: Any) -> tf.Tensor:
    place = [record['file'], ': ']
    if source.labels is None:
      place += ['record ', as_string(record['record']), ': ']
    return tf.strings.join([*place, *what])

  def example(record: Record) -> tuple[tf.Tensor, tf.Tensor]:
    return _example(source, record, ('', first - 1))

  def wrong_number(record: Record) -> tf.Tensor:
    what = ': the split holds more or fewer images than the configuration says'
    problem = tf.strings.join([record['file'], what])
    return _given(record['record'] < 0, problem)

  def unreadable(record: Record) -> tf.Tensor:
    problem = located(record, _DAMAGED)
    return _given(record['data'] == _UNREADABLE, problem)

  def no_image(record: Record) -> tf.Tensor:
    encoded, _ = example(record)
    problem = located(record, 'it holds no image')
    return _given(tf.strings.length(encoded) == 0, problem)

  def wrong_label(record: Record) -> tf.Tensor:
    label = example(record)[1]
    number = as_string(label + first)
    what = 'the label ', number, f' is not in {first}..{last}'
    is_class = (label >= 0) & (label < source.num_classes)
    return _given(~is_class, located(record, *what))

  def wrong_cue(record: Record) -> tf.Tensor:
    label = _cue(source, record, first - 1)
    what = f'{source.cue_key} is missing or not in {first}..{last}'
    is_class = (label >= 0) & (label < source.num_classes)
    return _given(~is_class, located(record, what))

  def wrong_sides(record: Record) -> tf.Tensor:
    shape = image_shape(example(record)[0])
    sides = as_string(shape)
    low, high = _allowed_sides(source)
    allowed = f' pixels; {low} to {high} a side are allowed'
    if source.side is not None:
      allowed = f' pixels; this test set has {low} x {low}'
    what = 'the image has ', sides[1], ' x ', sides[0], allowed
    return _given(~_are_allowed(source, shape), located(record, *what))

  def undecodable(record: Record) -> tf.Tensor:
    size = as_string(tf.strings.length(example(record)[0]))
    return located(record, 'the image cannot be decoded (', size, ' bytes)')

  def unparsable(record: Record) -> tf.Tensor:
    return located(record, 'not a tf.Example of an image and its label')

  return [
      wrong_number, unreadable, no_image, wrong_label,
      *([wrong_cue] if source.cue_key else []), wrong_sides,
      undecodable, unparsable,
  ]  # fmt: skip


def require(condition: tf.Tensor, problem: tf.Tensor) -> tf.Operation:
  """Fails with an error that `explain` understands unless `condition`."""
  message = tf.strings.join([_BEGIN, problem, _END])
  return tf.debugging.Assert(condition, [message])


def explain(error: tf.errors.OpError) -> Exception:
  """The `DataError` behind an error that an iterator raised.

  Returns:
    A DataError whose message is one line that names file, record and problem;
    `error` itself if it is not about data.
  """
  match = re.search(f'{_BEGIN}(.*?){_END}', error.message)
  if not match:
    return error
  # TensorFlow escapes quotes, and what is not ASCII byte by byte.
  problem = match.group(1).encode().decode('unicode_escape')
  problem = problem.encode('latin-1').decode(errors='replace')
  lost = re.match('(.*): record [0-9]+: ' + re.escape(_DAMAGED), problem)
  if lost:
    # The shuffle may come across any of the lost ones before the first.
    readable = tf.data.TFRecordDataset(lost.group(1)).ignore_errors()
    first = sum(1 for _ in readable)
    rest = problem[lost.end() :]
    problem = f'{lost.group(1)}: record {first}: {_DAMAGED}{rest}'
  return errors.DataError(problem)
