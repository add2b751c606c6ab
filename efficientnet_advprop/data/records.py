r"""Encoded records: the files of a split, reading and parsing them.

A record is a dictionary of scalar tensors: `file` (string), `record` (int64,
its place in the file), `data` (string: a serialized tf.Example, or empty where
the file itself is the image; `\\0` marks a record that cannot be read) and
`label` (int64, where the file does not hold it). Where a source's images are
cached, a record is `number` alone (int64, its place among all of the source,
file by file).
"""

import dataclasses
from typing import Any, Callable, Optional

import tensorflow as tf

from efficientnet_advprop.data import image_store
from efficientnet_advprop.data import tfrecords

Record = dict[str, tf.Tensor]
# Gives height, width and channels of an encoded image, int32 [3].
ImageShape = Callable[[tf.Tensor], tf.Tensor]

# Images with a shorter side hold nothing to learn from, ones with a longer
# side need gigabytes when decoded. ImageNet spans 20 to 9,331 pixels.
MIN_SIDE = 8
MAX_SIDE = 16_384
# The `data` of a record that cannot be read.
UNREADABLE = b'\0'

_READ_BUFFER_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Source:
  """The files of a split and how a record is written in them.

  Attributes:
    name: the split, for messages.
    files: TFRecord shards, or images.
    num_classes: how many labels there are.
    size: how many images the split holds.
    skips: how many records at the start of each file belong to other splits.
    counts: how many records of each file belong to the split; their sum is
      `size`. None if counting is too costly; the records are then counted while
      they are read, and another number than `size` is an error.
    sizes: bytes in each file; only where `counts` is None.
    labels: of each file, where each is an image. None for TFRecords.
    first_label: the number by which the files call the first class.
    image_key: the encoded image's feature in a tf.Example.
    label_key: the label's feature in a tf.Example.
    side: height and width of every image, in pixels, where they are to be used
      as they are stored. None: any, to be cropped and resized.
    cue_key: the feature of a second class that the image points to; None where
      nobody asks for it.
    cache: decoded images, which are read in place of the files.
  """

  name: str
  files: tuple[str, ...]
  num_classes: int
  size: int
  skips: tuple[int, ...] = ()
  counts: Optional[tuple[int, ...]] = None
  sizes: tuple[int, ...] = ()
  labels: Optional[tuple[int, ...]] = None
  first_label: int = 1
  image_key: str = 'image/encoded'
  label_key: str = 'image/class/label'
  side: Optional[int] = None
  cue_key: Optional[str] = None
  cache: Optional[image_store.Store] = dataclasses.field(
    default=None, compare=False
  )

  @property
  def allowed_sides(self) -> tuple[int, int]:
    """The least and the most pixels that a side of an image may have."""
    if self.side is not None:
      return self.side, self.side
    return MIN_SIDE, MAX_SIDE


# --- Reading ----------------------------------------------------------------


def _read_counted(
  path: tf.Tensor, skip: tf.Tensor, count: tf.Tensor
) -> tf.data.Dataset:
  """Reads exactly `count` records; those that cannot be read are marked.

  So one damaged file moves no other record to another place in the order.
  """
  found = tf.data.TFRecordDataset(path, buffer_size=_READ_BUFFER_BYTES)
  lost = tf.data.Dataset.from_tensor_slices([UNREADABLE]).repeat()
  # TensorFlow gives up a file at the first damaged record.
  return found.ignore_errors().concatenate(lost).skip(skip).take(count)


def _read_uncounted(path: tf.Tensor, size: tf.Tensor) -> tf.data.Dataset:
  """Reads all records, and a marked one unless they make up the file's size."""
  frame = tfrecords.HEADER_BYTES + tfrecords.FOOTER_BYTES

  def add_size(read: tf.Tensor, data: tf.Tensor) -> Any:
    length = tf.cast(tf.strings.length(data), tf.int64)
    return read + length + frame, (data, read)

  found = tf.data.TFRecordDataset(path, buffer_size=_READ_BUFFER_BYTES)
  end = tf.data.Dataset.from_tensor_slices([UNREADABLE])
  data = found.ignore_errors().concatenate(end)
  data = data.scan(tf.constant(0, tf.int64), add_size)
  data = data.filter(lambda _, read: read != size)
  return data.map(lambda data, _: data)


def _repeated(value: tf.Tensor) -> tf.data.Dataset:
  """Yields a scalar without end."""
  # Dataset.from_tensors would keep op determinism from reading in parallel.
  return tf.data.Dataset.from_tensor_slices(value[tf.newaxis]).repeat()


def read(source: Source, indices: tf.data.Dataset) -> tf.data.Dataset:
  """Reads files of a source, several at a time, in an order that never varies.

  Args:
    source: whose files.
    indices: int64, which of its files, in order.

  Returns:
    Records. Images that are files of their own are not read yet; of cached
    ones nothing is read.
  """
  if source.cache is not None:
    return number(source, indices)
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
      data, last = _read_uncounted(file, sizes[index]), tf.int64.max
    else:
      count = counts[index]
      data, last = _read_counted(file, skip, count), skip + count
    # No function joins them: to call one takes longer than to read a record.
    return tf.data.Dataset.zip(
      {
        'file': _repeated(file),
        'record': tf.data.Dataset.range(skip, last),
        'data': data,
        'label': _repeated(none),
      }
    )

  return _taking_turns(source, indices, read_file)


def number(source: Source, indices: tf.data.Dataset) -> tf.data.Dataset:
  """Returns the numbers of records, in the order in which `read` reads them.

  Args:
    source: whose files, which are counted.
    indices: as for `read`.
  """
  assert source.counts is not None
  if source.labels is not None:
    return indices.map(lambda index: {'number': index})
  with tf.init_scope():
    counts = tf.constant(source.counts, tf.int64)
    firsts = tf.cumsum(counts, exclusive=True)

  def number_file(index: tf.Tensor) -> tf.data.Dataset:
    first = firsts[index]
    numbers = tf.data.Dataset.range(first, first + counts[index])
    return tf.data.Dataset.zip({'number': numbers})

  return _taking_turns(source, indices, number_file)


def _taking_turns(
  source: Source,
  indices: tf.data.Dataset,
  read_file: Callable[[tf.Tensor], tf.data.Dataset],
) -> tf.data.Dataset:
  """Takes one record of each of several files in turn."""
  return indices.interleave(
    read_file,
    cycle_length=min(16, len(source.files)),
    block_length=1,
    num_parallel_calls=tf.data.AUTOTUNE,
    deterministic=True,
  )


def check_count(dataset: tf.data.Dataset, source: Source) -> tf.data.Dataset:
  """Marks a record if the files hold more or fewer than `source.size`.

  A missing record is marked, a surplus one takes the mark's place: either ends
  the reading with an error that names the split.

  Args:
    dataset: all records of a source that is not counted, once.
    source: the source.
  """
  missing = {
      'file': source.name, 'record': tf.constant(-1, tf.int64),
      'data': UNREADABLE, 'label': tf.constant(-1, tf.int64),
  }  # fmt: skip
  one = {key: tf.expand_dims(value, 0) for key, value in missing.items()}
  filler = tf.data.Dataset.from_tensor_slices(one).repeat(source.size)

  def check(index: tf.Tensor, record: Record) -> Record:
    surplus = index >= source.size
    return {k: tf.where(surplus, missing[k], record[k]) for k in missing}

  padded = dataset.concatenate(filler).enumerate()
  real = padded.take_while(lambda i, r: (i < source.size) | (r['record'] >= 0))
  return real.map(check)


# --- Parsing ----------------------------------------------------------------


def image_and_label(
  source: Source,
  record: Record,
  default_image: Optional[str] = None,
  default_label: Optional[int] = None,
) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns the encoded image and its label, int64, from 0.

  Args:
    source: where the record comes from.
    record: what `read` yields.
    default_image: stands for an image that a tf.Example lacks; None: fail.
    default_label: stands for a label that it lacks, as the files number it;
      None: fail.
  """
  if source.labels is not None:
    return tf.io.read_file(record['file']), record['label']
  features = {
    source.image_key: tf.io.FixedLenFeature([], tf.string, default_image),
    source.label_key: tf.io.FixedLenFeature([], tf.int64, default_label),
  }
  example = tf.io.parse_single_example(record['data'], features)
  label = example[source.label_key] - source.first_label
  return example[source.image_key], label


def cue(
  source: Source, record: Record, default: Optional[int] = None
) -> tf.Tensor:
  """Returns the class of the cue, int64, from 0; see `image_and_label`."""
  features = {source.cue_key: tf.io.FixedLenFeature([], tf.int64, default)}
  example = tf.io.parse_single_example(record['data'], features)
  return example[source.cue_key] - source.first_label


def is_class(source: Source, label: tf.Tensor) -> tf.Tensor:
  """Returns whether a label, from 0, is one of the source's, bool []."""
  return (label >= 0) & (label < source.num_classes)


def are_allowed(source: Source, shape: tf.Tensor) -> tf.Tensor:
  """Returns whether an image of this shape may be decoded, bool []."""
  low, high = source.allowed_sides
  return tf.reduce_all((shape[:2] >= low) & (shape[:2] <= high))


def given(condition: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
  """Returns `value`, or fails without a reason unless `condition` holds."""
  with tf.control_dependencies([tf.debugging.Assert(condition, ['-'])]):
    return tf.identity(value)


def parse(
  source: Source, image_shape: ImageShape, record: Record
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
  """Returns a record's encoded image, that image's shape, and the label.

  The label is int32 in [0, num_classes). An error says only that something is
  wrong; `bad_records.diagnoses` says what.

  Args:
    source: where the record comes from.
    image_shape: gives height, width and channels of an encoded image.
    record: what `read` yields.
  """
  encoded, label = image_and_label(source, record)
  shape = image_shape(encoded)
  is_sound = is_class(source, label) & are_allowed(source, shape)
  shape = given(is_sound, shape)
  return encoded, shape, tf.cast(label, tf.int32)


def parse_cue(source: Source, record: Record) -> tf.Tensor:
  """Returns the class that a record's cue points to.

  An int32 in [0, num_classes); errors are like those of `parse`.

  Args:
    source: where the record comes from, with a `cue_key`.
    record: what `read` yields.
  """
  label = cue(source, record)
  return tf.cast(given(is_class(source, label), label), tf.int32)
