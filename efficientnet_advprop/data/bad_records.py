"""Records that cannot be used: named, replaced where that is allowed, or fatal.

Inside tf.data an error cannot be caught but for `ignore_errors`, and it says
little. Therefore a record that fails passes through `diagnoses`, which yield a
line that says what is wrong as data (`problem`). One place, `check`, decides
whether the run stops; `explain` takes the line out of the error that TensorFlow
then raises.
"""

from collections.abc import Iterator
import contextlib
import functools
import re
import sys
from typing import Any, Callable

import tensorflow as tf

from efficientnet_advprop.base import errors
from efficientnet_advprop.data import records

Batch = dict[str, tf.Tensor]

_DAMAGED = 'damaged or missing (a flipped bit, or a file that was cut short)'
# What `explain` looks for in the message of an error.
_BEGIN, _END = '<<bad data: ', '>>'


# --- Naming -----------------------------------------------------------------


def first_successful(
  value: Any, *functions: Callable[[Any], Any]
) -> tf.data.Dataset:
  """Returns the result of the first of `functions` that does not fail.

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


def diagnoses(
  source: records.Source, image_shape: records.ImageShape
) -> list[Callable[[records.Record], tf.Tensor]]:
  """Lists what may be wrong with a record, the most precise first.

  Returns:
    Functions from a record to a string, `<file>: record <n>: <what>`, which
    fail if that is not what is wrong; for `first_successful`.
  """
  cache = source.cache
  if cache is not None:
    return [lambda record: cache.problem(record['number'])]
  first, last = source.first_label, source.first_label + source.num_classes - 1
  as_string = tf.strings.as_string

  def located(record: records.Record, *what: Any) -> tf.Tensor:
    place = [record['file'], ': ']
    if source.labels is None:
      place += ['record ', as_string(record['record']), ': ']
    return tf.strings.join([*place, *what])

  def example(record: records.Record) -> tuple[tf.Tensor, tf.Tensor]:
    return records.image_and_label(source, record, '', first - 1)

  def wrong_number(record: records.Record) -> tf.Tensor:
    what = ': the split holds more or fewer images than the configuration says'
    problem = tf.strings.join([record['file'], what])
    return records.given(record['record'] < 0, problem)

  def unreadable(record: records.Record) -> tf.Tensor:
    problem = located(record, _DAMAGED)
    return records.given(record['data'] == records.UNREADABLE, problem)

  def no_image(record: records.Record) -> tf.Tensor:
    encoded, _ = example(record)
    problem = located(record, 'it holds no image')
    return records.given(tf.strings.length(encoded) == 0, problem)

  def wrong_label(record: records.Record) -> tf.Tensor:
    label = example(record)[1]
    number = as_string(label + first)
    what = 'the label ', number, f' is not in {first}..{last}'
    is_class = records.is_class(source, label)
    return records.given(~is_class, located(record, *what))

  def wrong_cue(record: records.Record) -> tf.Tensor:
    label = records.cue(source, record, first - 1)
    what = f'{source.cue_key} is missing or not in {first}..{last}'
    is_class = records.is_class(source, label)
    return records.given(~is_class, located(record, what))

  def wrong_sides(record: records.Record) -> tf.Tensor:
    shape = image_shape(example(record)[0])
    sides = as_string(shape)
    low, high = source.allowed_sides
    allowed = f' pixels; {low} to {high} a side are allowed'
    if source.side is not None:
      allowed = f' pixels; this test set has {low} x {low}'
    what = 'the image has ', sides[1], ' x ', sides[0], allowed
    are_allowed = records.are_allowed(source, shape)
    return records.given(~are_allowed, located(record, *what))

  def undecodable(record: records.Record) -> tf.Tensor:
    size = as_string(tf.strings.length(example(record)[0]))
    return located(record, 'the image cannot be decoded (', size, ' bytes)')

  def unparsable(record: records.Record) -> tf.Tensor:
    return located(record, 'not a tf.Example of an image and its label')

  return [
      wrong_number, unreadable, no_image, wrong_label,
      *([wrong_cue] if source.cue_key else []), wrong_sides,
      undecodable, unparsable,
  ]  # fmt: skip


def failures(
  source: records.Source,
  image_shape: records.ImageShape,
  element_spec: dict[str, tf.TensorSpec],
) -> list[Callable[[records.Record], Batch]]:
  """Lists what to yield for a record that fails; for `first_successful`.

  Args:
    source: where the records come from.
    image_shape: gives the shape of an encoded image.
    element_spec: of what a good record yields, with `problem`, string [].

  Returns:
    Functions from a record to zeros with the problem of the record.
  """

  def fail(
    diagnose: Callable[[records.Record], tf.Tensor], record: records.Record
  ) -> Batch:
    blank = {k: tf.zeros(s.shape, s.dtype) for k, s in element_spec.items()}
    return dict(blank, problem=diagnose(record))

  found = diagnoses(source, image_shape)
  return [functools.partial(fail, diagnose) for diagnose in found]


# --- Deciding ---------------------------------------------------------------


def require(condition: tf.Tensor, problem: tf.Tensor) -> tf.Operation:
  """Fails with an error that `explain` understands unless `condition`."""
  message = tf.strings.join([_BEGIN, problem, _END])
  return tf.debugging.Assert(condition, [message])


def check(
  dataset: tf.data.Dataset, limit: int, count: int = tf.int64.max
) -> tf.data.Dataset:
  """Replaces `problem` by `valid`, bool; stops after `limit` bad records.

  Args:
    dataset: of batches with `problem`, string [batch], and `position`, int64
      [batch].
    limit: how many bad records are only reported.
    count: positions from here on are not counted.
  """

  def step(total: tf.Tensor, batch: Batch) -> Any:
    problems = batch.pop('problem')
    batch['valid'] = problems == ''
    is_bad = ~batch['valid'] & (batch['position'] < count)
    total += tf.math.count_nonzero(is_bad)
    first = problems[tf.argmax(is_bad)]
    if limit:
      report = _report_all(tf.boolean_mask(problems, is_bad))
      first = tf.strings.join([first, f' (data.max_bad_records={limit})'])
    else:
      report = tf.no_op()
    with tf.control_dependencies([report]):
      stop = require(total <= limit, first)
    with tf.control_dependencies([stop]):
      return total, {key: tf.identity(value) for key, value in batch.items()}

  return dataset.scan(tf.constant(0, tf.int64), step)


def _report_all(problems: tf.Tensor) -> tf.Operation:
  """Writes a line for each bad record to the standard error."""

  def report() -> tf.Operation:
    lines = tf.strings.reduce_join(problems, separator='\nBad record: ')
    # One scalar: tf.print would quote several.
    lines = tf.strings.join(['Bad record: ', lines])
    return tf.print(lines, output_stream=sys.stderr)

  return tf.cond(tf.size(problems) > 0, report, tf.no_op)


def replace(batch: Batch) -> Batch:
  """Puts the nearest good example before it in a bad one's place.

  Args:
    batch: with `valid`, bool [batch]; `position` stays as it is.
  """
  valid = batch['valid']
  rows = tf.range(valid.shape[0])
  is_before = rows[:, tf.newaxis] >= rows[tf.newaxis]
  good = tf.where(valid[tf.newaxis] & is_before, rows, -1)
  nearest = tf.reduce_max(good, axis=1)
  first = tf.argmax(valid, output_type=tf.int32)
  nearest = tf.where(nearest < 0, first, nearest)
  some = require(tf.reduce_any(valid), 'no record of a whole batch can be used')
  with tf.control_dependencies([some]):
    return {
      key: value if key == 'position' else tf.gather(value, nearest)
      for key, value in batch.items()
    }


# --- Explaining -------------------------------------------------------------


def explain(error: tf.errors.OpError) -> Exception:
  """Returns the `DataError` behind an error that an iterator raised.

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


@contextlib.contextmanager
def data_errors() -> Iterator[None]:
  """Turns the errors of iterators inside the context into DataErrors."""
  try:
    yield
  except tf.errors.OpError as error:
    raise explain(error) from error
