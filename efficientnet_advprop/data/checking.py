"""Reads every image of a source and names all that cannot be used.

Training meets a bad record at some step of some epoch and stops there. This
finds them all beforehand: everything that training would refuse, and JPEGs that
are damaged outside of a crop.
"""

from collections.abc import Iterator
import functools
from typing import Callable, NamedTuple

import tensorflow as tf

from efficientnet_advprop.data import bad_records
from efficientnet_advprop.data import preprocessing
from efficientnet_advprop.data import records

_CHUNK = 16


class Checked(NamedTuple):
  """What is known after some more images.

  Attributes:
    done: how many images have been read since the beginning.
    problems: a line for each of the last ones that cannot be used.
  """

  done: int
  problems: list[str]


def _decode(source: records.Source, record: records.Record) -> records.Record:
  """Decodes the whole image of a record; fails if it cannot be used."""
  encoded, shape, _ = records.parse(source, preprocessing.image_shape, record)
  whole = tf.concat([[0, 0], shape[:2]], 0)
  image = preprocessing.decode_and_crop(encoded, whole)
  # Without a use of its pixels the image would not be decoded.
  return {'sum': tf.reduce_sum(tf.cast(image, tf.int64)), 'problem': ''}


def check(source: records.Source) -> Iterator[Checked]:
  """Decodes all images of a source, several at a time, in its order.

  Args:
    source: as `sources.find_set` returns it.

  Yields:
    How far it is, every few images.
  """
  decode = functools.partial(_decode, source)
  spec = {
    'sum': tf.TensorSpec([], tf.int64),
    'problem': tf.TensorSpec([], tf.string),
  }
  failures = bad_records.failures(source, preprocessing.image_shape, spec)
  functions: list[Callable[[records.Record], records.Record]]
  functions = [decode, *failures]

  def check_chunk(chunk: records.Record) -> tf.data.Dataset:
    stored = tf.data.Dataset.from_tensor_slices(chunk)
    checked = stored.flat_map(
      lambda record: bad_records.first_successful(record, *functions)
    )
    return checked.map(lambda found: found['problem']).batch(_CHUNK)

  stream = records.read(source, tf.data.Dataset.range(len(source.files)))
  if source.counts is None:
    stream = records.check_count(stream, source)
  chunks = stream.batch(_CHUNK).interleave(
    check_chunk,
    cycle_length=tf.data.AUTOTUNE,
    num_parallel_calls=tf.data.AUTOTUNE,
    deterministic=True,
  )
  done = 0
  for problems in chunks.as_numpy_iterator():
    done += len(problems)
    found = [problem.decode(errors='replace') for problem in problems]
    yield Checked(done, [problem for problem in found if problem])
