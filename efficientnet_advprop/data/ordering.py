"""Which record comes when, and to which host.

Every record gets a `position`, int64: its place among all examples of the run
(training) or of the split (evaluation): step * global batch + row.
"""

import dataclasses
import functools
from typing import Optional

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.data import records

_INFINITY = tf.int64.max


@dataclasses.dataclass(frozen=True)
class Place:
  """A host's place among all hosts of a run, and the batches it makes.

  The rows of a global batch are divided among the hosts, a host's rows among
  its replicas, both in order.
  """

  host: int
  hosts: int
  global_batch: int
  replica_batch: int

  @property
  def host_batch(self) -> int:
    """How many rows of a global batch are this host's."""
    return self.global_batch // self.hosts


def place(
  context: Optional[tf.distribute.InputContext], batch_size: int, key: str
) -> Place:
  """Divides a global batch.

  Raises:
    ConfigError: it does not divide by the number of replicas; names `key`.
  """
  context = context or tf.distribute.InputContext()
  replicas = context.num_replicas_in_sync
  if batch_size % replicas:
    allowed = f'a multiple of {replicas}, the number of replicas'
    raise config_lib.ConfigError(key, batch_size, allowed)
  return Place(
    context.input_pipeline_id,
    context.num_input_pipelines,
    batch_size,
    batch_size // replicas,
  )


def is_shared(source: records.Source, config: config_lib.Config) -> bool:
  """Whether all hosts train in one order, of which each takes its rows.

  They do if the shuffle of the training set is perfect.
  """
  return source.labels is not None or source.size <= config.data.shuffle_window


def training_order(
  source: records.Source,
  start_step: int,
  place: Place,
  config: config_lib.Config,
) -> tf.data.Dataset:
  """The records this host trains on, without end, each with its `position`.

  Args:
    source: the training set.
    start_step: how many global batches are left out at the beginning.
    place: the host's.
    config: seed and window of the shuffle.

  Raises:
    DataError: there are fewer files than hosts that must divide them.
  """
  window, seed = config.data.shuffle_window, config.train.seed
  shared = is_shared(source, config)
  host, hosts = (0, 1) if shared else (place.host, place.hosts)
  if hosts > len(source.files):
    raise errors.DataError(
      f'{source.name}: {len(source.files)} files for {hosts} hosts; each'
      ' needs one of its own (or data.shuffle_window must hold all images)'
    )
  step_size = place.global_batch if shared else place.host_batch
  start = start_step * step_size
  first_epoch, skip = _epoch_of(source, start, seed, host, hosts)
  read_epoch = functools.partial(_read_epoch, source, seed, window, host, hosts)
  stream = tf.data.Dataset.range(first_epoch, _INFINITY).flat_map(read_epoch)
  stream = stream.skip(skip).enumerate(start)
  if shared:
    return _own_rows(stream, place).map(_with_position)
  row = functools.partial(_global_position, place)
  return stream.map(lambda i, record: _with_position(row(i), record))


def evaluation_order(source: records.Source, place: Place) -> tf.data.Dataset:
  """This host's share of all records, each with its `position`.

  The last global batch is filled up with records from the beginning, whose
  positions are `source.size` and above. Every host reads all records, which
  keeps the counts exact; it decodes only its own.
  """
  stream = records.read(source, tf.data.Dataset.range(len(source.files)))
  if source.counts is None:
    stream = records.check_count(stream, source)
  steps = -(-source.size // place.global_batch)
  stream = stream.repeat().take(steps * place.global_batch)
  return _own_rows(stream.enumerate(), place).map(_with_position)


def _with_position(
  position: tf.Tensor, record: records.Record
) -> records.Record:
  return dict(record, position=position)


def _global_position(place: Place, index: tf.Tensor) -> tf.Tensor:
  """The position of the record that is number `index` on this host."""
  step, row = index // place.host_batch, index % place.host_batch
  return step * place.global_batch + place.host * place.host_batch + row


def _own_rows(stream: tf.data.Dataset, place: Place) -> tf.data.Dataset:
  """Keeps the numbered records of this host's rows."""
  if place.hosts == 1:
    return stream

  def is_own(position: tf.Tensor, _: records.Record) -> tf.Tensor:
    row = position % place.global_batch
    return row // place.host_batch == place.host

  return stream.filter(is_own)


def _permutation(size: int, seed: int, epoch: tf.Tensor) -> tf.Tensor:
  """The numbers below `size` in an order that is a function of the rest."""
  key = tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])
  draws = tf.random.stateless_uniform(
    [size], key, None, None, tf.int32, alg='philox'
  )
  return tf.cast(tf.argsort(draws, stable=True), tf.int64)


def _epoch_of(
  source: records.Source,
  start: int,
  seed: int,
  host: int,
  hosts: int,
) -> tuple[int, int]:
  """Returns the epoch of a host's example number `start`, and its place there.

  A host's files change from epoch to epoch, and so may their records' number.
  """
  if hosts == 1 or source.counts is None:
    return divmod(start, _share(source.size, host, hosts))
  counts, epoch = tf.constant(source.counts, tf.int64), 0
  while True:
    files = _permutation(len(source.files), seed, epoch)[host::hosts]
    size = int(tf.reduce_sum(tf.gather(counts, files)))
    if start < size:
      return epoch, start
    epoch, start = epoch + 1, start - size


def _share(count: int, host: int, hosts: int) -> int:
  return count // hosts + int(host < count % hosts)


def _read_epoch(
  source: records.Source,
  seed: int,
  window: int,
  host: int,
  hosts: int,
  epoch: tf.Tensor,
) -> tf.data.Dataset:
  """The records that a host sees in an epoch, shuffled.

  NOTE: if the records of the files are not counted and several hosts divide
  them, each host's epoch has exactly its share of all: as hosts' files
  hold slightly different numbers, a few records are left out or come twice.
  """
  # The shuffle below must not depend on the caller's tf.random.set_seed. This
  # sets the seed of the function that is being traced only; 0 would be none.
  tf.compat.v1.set_random_seed(seed + 1)
  files = _permutation(len(source.files), seed, epoch)[host::hosts]
  stream = records.read(source, tf.data.Dataset.from_tensor_slices(files))
  if source.counts is None and hosts == 1:
    stream = records.check_count(stream, source)
  if source.labels is None:
    stream = stream.shuffle(window, epoch, reshuffle_each_iteration=False)
  if source.counts is None and hosts > 1:
    stream = stream.repeat().take(_share(source.size, host, hosts))
  return stream
