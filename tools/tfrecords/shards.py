"""Writes and verifies TFRecord shards of images, many at a time."""

from collections.abc import Iterator, Sequence
import concurrent.futures
import multiprocessing
import os
import threading
import time
from typing import Any, Callable, NamedTuple, Optional, Union

from absl import logging
import tensorflow as tf

from efficientnet_advprop.base import files
from efficientnet_advprop.data import tfrecords
from tools.tfrecords import image_listing
from tools.tfrecords import image_repair

_SECONDS_PER_REPORT = 10
_STRINGS = (
  'image/encoded',
  'image/class/synset',
  'image/class/text',
  'image/filename',
  'image/format',
  'image/colorspace',
)
_INTEGERS = (
  'image/class/label',
  'image/height',
  'image/width',
  'image/channels',
)
# Images that this process is done with and has not reported yet.
_done: Optional[Any] = None


class ShardTask(NamedTuple):
  """A shard to write: its path, its images in order, the split's classes."""

  number: int
  path: str
  images: Sequence[image_listing.Image]
  classes: Sequence[str]


class CheckTask(NamedTuple):
  """A shard to verify: its path, how many records, the split's classes."""

  number: int
  path: str
  num_records: int
  classes: Sequence[str]


# --- Writing ----------------------------------------------------------------


def write_shard(task: ShardTask) -> dict[str, Any]:
  """Writes a shard under a temporary name, then renames it.

  Returns:
    For JSON: `bytes` of the file, images `written`, how many were `repaired`,
    how often by kind (`repairs`), and the `unreadable`: class, path, reason.
  """
  labels = {name: label for label, name in enumerate(task.classes, 1)}
  repairs: dict[str, int] = {}
  unreadable: list[list[str]] = []
  repaired = 0
  unfinished = files.temporary_name(task.path)
  with tf.io.TFRecordWriter(unfinished) as writer:
    for image in task.images:
      try:
        prepared = image_repair.prepare(image.read())
      except image_repair.UnreadableError as error:
        unreadable.append([image.class_name, image.path, str(error)])
      else:
        label = labels[image.class_name]
        writer.write(serialized(image, label, prepared))
        repaired += bool(prepared.repairs)
        for kind in prepared.repairs:
          repairs[kind] = repairs.get(kind, 0) + 1
      _count_one()
  os.replace(unfinished, task.path)
  return {
    'bytes': os.path.getsize(task.path),
    'written': len(task.images) - len(unreadable),
    'repaired': repaired,
    'repairs': repairs,
    'unreadable': unreadable,
  }


def serialized(
  image: image_listing.Image, label: int, prepared: image_repair.Prepared
) -> bytes:
  """A tf.Example in the schema of the official ImageNet script."""
  values: dict[str, Union[int, str, bytes]] = {
    'image/encoded': prepared.jpeg,
    'image/class/label': label,
    'image/class/synset': image.class_name,
    'image/class/text': image.class_name,
    'image/height': prepared.height,
    'image/width': prepared.width,
    'image/channels': 3,
    'image/colorspace': 'RGB',
    'image/format': 'JPEG',
    'image/filename': image.name,
  }
  return tfrecords.encode_example(values)


# --- Verifying --------------------------------------------------------------


def verify_shard(task: CheckTask) -> dict[str, Any]:
  """Reads every record of a shard, its image in full.

  Returns:
    `problems`: a line for each, with file and record; `labels`: how many
    records of each class were read, by the class's name.
  """
  found: dict[str, int] = {}
  if not os.path.isfile(task.path):
    return {'problems': [f'{task.path}: missing'], 'labels': found}
  count, problem = tfrecords.count_records(task.path)
  problems = [problem] if problem else []
  if not problem and count != task.num_records:
    wrong = f'{count} records, {task.num_records} were written'
    problems.append(f'{task.path}: {wrong}')
  data = iter(tf.data.TFRecordDataset(task.path).take(count))
  for number in range(count):
    try:
      example = next(data).numpy()
    except tf.errors.OpError:  # Nothing after it can be read.
      lost = 'damaged (a flipped bit); the rest of the file was not read'
      problems.append(f'{task.path}: record {number}: {lost}')
      break
    problem = _problem(example, task.classes, found)
    if problem:
      problems.append(f'{task.path}: record {number}: {problem}')
    _count_one()
  return {'problems': problems, 'labels': found}


def _problem(
  example: bytes, classes: Sequence[str], found: dict[str, int]
) -> Optional[str]:
  """What is wrong with a record; counts its class where it has one."""
  schema = {key: tf.io.FixedLenFeature([], tf.string) for key in _STRINGS}
  for key in _INTEGERS:
    schema[key] = tf.io.FixedLenFeature([], tf.int64)
  try:
    parsed = tf.io.parse_single_example(example, schema)
  except tf.errors.OpError:
    return 'not a tf.Example of the schema'
  values = {key: value.numpy() for key, value in parsed.items()}
  label = values['image/class/label']
  if not 1 <= label <= len(classes):
    return f'the label {label} is not in 1..{len(classes)}'
  name = classes[label - 1]
  found[name] = found.get(name, 0) + 1
  synset = os.fsdecode(values['image/class/synset'])
  if synset != name:
    return f'the label {label} is of {name!r}, the synset is {synset!r}'
  if values['image/format'] != b'JPEG' or values['image/colorspace'] != b'RGB':
    return 'format or colorspace is not that of an RGB JPEG'
  encoded = values['image/encoded']
  if not tf.io.is_jpeg(encoded):
    return 'the image is not a JPEG'
  try:
    shape = tf.io.decode_jpeg(encoded).shape
  except tf.errors.OpError:
    return f'the image cannot be decoded ({len(encoded)} bytes)'
  sides = ('image/height', 'image/width', 'image/channels')
  stated = tuple(int(values[key]) for key in sides)
  if tuple(shape) != stated:
    return f'the image is {tuple(shape)}, the features say {stated}'
  return None


# --- Many at a time ---------------------------------------------------------


def _count_one() -> None:
  if _done is not None:
    with _done.get_lock():
      _done.value += 1


def _start_worker(done: Any) -> None:
  """Counts images in `done`, and ends the worker when its parent is gone.

  A killed program's workers would otherwise go on writing files that the
  program, started again, writes too.
  """
  global _done
  _done = done
  tf.config.threading.set_intra_op_parallelism_threads(1)
  tf.config.threading.set_inter_op_parallelism_threads(1)
  parent = multiprocessing.parent_process()

  def watch() -> None:
    if parent is not None:
      parent.join()
      os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


def run(
  function: Callable[[Any], dict[str, Any]],
  tasks: Sequence[Any],
  num_images: int,
  num_workers: int,
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Applies `function` to all tasks; yields numbers and results as they come.

  Progress is logged.

  Args:
    function: of this module.
    tasks: of which each has a `number`.
    num_images: in all tasks.
    num_workers: processes.
  """
  # TensorFlow is loaded once and does not survive a fork once it has run.
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload(['tensorflow', __name__])
  done = context.Value('q', 0)
  start = time.monotonic()
  with concurrent.futures.ProcessPoolExecutor(
    num_workers, context, _start_worker, (done,)
  ) as pool:
    futures = {pool.submit(function, task): task.number for task in tasks}
    pending = set(futures)
    reported = start
    try:
      while pending:
        finished, pending = concurrent.futures.wait(
          pending, _SECONDS_PER_REPORT, concurrent.futures.FIRST_COMPLETED
        )
        for future in finished:
          yield futures[future], future.result()
        now = time.monotonic()
        if now - reported >= _SECONDS_PER_REPORT or not pending:
          _report(done.value, num_images, now - start)
          reported = now
    finally:  # An error must not wait for all the other shards.
      for future in pending:
        future.cancel()


def _report(done: int, total: int, seconds: float) -> None:
  rate = done / max(seconds, 1e-9)
  left = round((total - done) / rate) if done else 0
  clock = f'{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}'
  logging.info(
    '%d of %d images, %.0f a second, %s left', done, total, rate, clock
  )
