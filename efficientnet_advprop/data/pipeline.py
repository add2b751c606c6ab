"""Batches for training and evaluation.

The order of training images is a pure function of (seed, epoch, position). In
each epoch the files are permuted, read side by side, and their records are
shuffled by a window. The stream runs on over the ends of epochs; every image
comes once in each. A run that starts at step N skips whole epochs by
arithmetic and the rest as encoded records.

If the window holds the whole training set, or each image is a file, then all
hosts share one order and take their own parts of each global batch, so that the
batches do not depend on the number of hosts. Otherwise each host reads its own
files.
"""

import functools
from typing import Callable, Optional

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.data import bad_records
from efficientnet_advprop.data import mixing
from efficientnet_advprop.data import ordering
from efficientnet_advprop.data import preprocessing
from efficientnet_advprop.data import records

Batch = dict[str, tf.Tensor]

_RAM_BUDGET_BYTES = 4 << 30
# Images that are decoded in one go: errors are caught once for each of these.
_MAX_CHUNK = 16
# Nothing here needs it, and it would double the time to trace.
_without_autograph = tf.autograph.experimental.do_not_convert


@_without_autograph
def train_dataset(
  config: config_lib.Config,
  source: records.Source,
  start_step: int = 0,
  context: Optional[tf.distribute.InputContext] = None,
  two_views: bool = False,
) -> tf.data.Dataset:
  """Training batches, one for each replica in turn, without end.

  Args:
    config: the run.
    source: its training set, as `sources.find` returns it.
    start_step: how many global batches have been used already.
    context: this host's place among all, from
      `strategy.distribute_datasets_from_function`; None for one replica.
    two_views: also yield the augmented image with the plain one, both from
      the same crop.

  Returns:
    A dataset of dictionaries: `image`, float32 [batch, size, size, 3] in
    [-1, 1]; `label`, int32 [batch]; `seed`, int32 [batch, 2], unlike any other
    example's, from which all further randomness is to be drawn. With
    `two_views`, `image` is not augmented and `augmented_image` is. The batch is
    `train.batch_size` over the number of replicas.

  Raises:
    ConfigError: the batch size does not divide by the number of replicas.
    DataError: there are fewer files than hosts that must divide them. Later
      problems are raised by the iterator; see `bad_records.explain`.
  """
  place = ordering.place(context, config.train.batch_size, 'train.batch_size')
  stream = ordering.training_order(source, start_step, place, config)
  decode = functools.partial(_decode_for_training, source, config, two_views)
  dataset = _decoded_batches(stream, source, decode, place.replica_batch)
  limit = config.data.max_bad_records
  if config.mixes and place.replica_batch % 2:
    allowed = 'a multiple of twice the replicas, as mixing takes pairs'
    raise config_lib.ConfigError(
      'train.batch_size', config.train.batch_size, allowed
    )
  finish = functools.partial(
    _finish_training, config, source.num_classes, limit > 0
  )
  dataset = bad_records.check(dataset, limit).map(finish, tf.data.AUTOTUNE)
  # Several workers would take the size of a batch, which may be the last one,
  # for unknown.
  endless = tf.data.experimental.assert_cardinality(
    tf.data.INFINITE_CARDINALITY
  )
  return _served(dataset.apply(endless))


@_without_autograph
def eval_dataset(
  config: config_lib.Config,
  source: records.Source,
  context: Optional[tf.distribute.InputContext] = None,
  batch_size: Optional[int] = None,
) -> tf.data.Dataset:
  """Each image of a source once, over all hosts and replicas.

  Args:
    config: the run.
    source: of the images. Those with a `side` are used as they are stored, all
      others are cropped and resized to `model.image_size`.
    context: as for `train_dataset`.
    batch_size: over all replicas; `eval.batch_size` if None.

  Returns:
    A dataset of dictionaries: `image`, float32 [batch, size, size, 3] in
    [-1, 1]; `label`, int32 [batch]; `seed`, int32 [batch, 2], as for
    `train_dataset`; `weight`, float32 [batch]: 1, or 0 for those that only fill
    the last batches and for bad records that `data.max_bad_records` allows.
    `position`, int32 [batch], in the order of reading. With a cue also
    `cue_label`, int32 [batch]. Every replica gets equally many batches.

  Raises:
    ConfigError: the batch size does not divide by the number of replicas.
      Problems of the data are raised by the iterator; see
      `bad_records.explain`.
  """
  place = ordering.place(
    context, batch_size or config.eval.batch_size, 'eval.batch_size'
  )
  stream = ordering.evaluation_order(source, place)
  decode = functools.partial(_decode_for_evaluation, source, config)
  dataset = _decoded_batches(stream, source, decode, place.replica_batch)
  limit = config.data.max_bad_records
  dataset = bad_records.check(dataset, limit, source.size)
  finish = functools.partial(_finish_evaluation, config.train.seed, source.size)
  return _served(dataset.map(finish, tf.data.AUTOTUNE))


def _served(dataset: tf.data.Dataset) -> tf.data.Dataset:
  options = tf.data.Options()
  options.deterministic = True
  options.autotune.ram_budget = _RAM_BUDGET_BYTES
  # Hosts divide the data themselves.
  options.experimental_distribute.auto_shard_policy = (
    tf.data.experimental.AutoShardPolicy.OFF
  )
  return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


# --- One record -------------------------------------------------------------


def _seeds(seed: int, positions: tf.Tensor) -> tf.Tensor:
  """Seeds of examples, int32 [..., 2], from their positions."""
  positions = tf.cast(positions % 2**31, tf.int32)
  return tf.stack([tf.fill(tf.shape(positions), seed), positions], -1)


def _decode_for_training(
  source: records.Source,
  config: config_lib.Config,
  two_views: bool,
  record: records.Record,
) -> Batch:
  data, size = config.data, config.model.image_size
  seed = _seeds(config.train.seed, record['position'])
  crop: Callable[[tf.Tensor], tf.Tensor]
  if source.cache is not None:
    number = record['number']
    shape, label = source.cache.shape(number), source.cache.label(number)
    shape = records.given(shape[0] > 0, shape)
    crop = functools.partial(source.cache.crop, number)
  else:
    encoded, shape, label = records.parse(
      source, preprocessing.image_shape, record
    )
    crop = functools.partial(preprocessing.decode_and_crop, encoded)
  image = preprocessing.training_crop(crop, shape, seed, size, data)
  augmented = preprocessing.augment(image, seed, data)
  if two_views:
    return {'image': image, 'augmented_image': augmented, 'label': label}
  return {'image': augmented, 'label': label}


def _decode_for_evaluation(
  source: records.Source, config: config_lib.Config, record: records.Record
) -> Batch:
  if source.cache is not None:
    number = record['number']
    image = source.cache.floats(number, config.model.image_size)
    return {'image': image, 'label': source.cache.label(number)}
  encoded, shape, label = records.parse(
    source, preprocessing.image_shape, record
  )
  if source.side is not None:
    image = preprocessing.stored_image(encoded, source.side)
  else:
    image = preprocessing.evaluation_image(
      encoded, config.model.image_size, config.data.eval_crop_padding, shape
    )
  example = {'image': image, 'label': label}
  if source.cue_key is not None:
    example['cue_label'] = records.parse_cue(source, record)
  return example


def _with_position(
  function: Callable[[records.Record], Batch], record: records.Record
) -> Batch:
  return dict(function(record), position=record['position'])


# --- Batches ----------------------------------------------------------------


def _decoded_batches(
  stream: tf.data.Dataset,
  source: records.Source,
  decode: Callable[[records.Record], Batch],
  batch_size: int,
) -> tf.data.Dataset:
  """Decodes records in parallel and batches the results.

  Adds `position` and `problem`, a string: empty, or why an image is blank.
  """
  size = max(n for n in range(1, _MAX_CHUNK + 1) if batch_size % n == 0)

  def decode_one(record: records.Record) -> Batch:
    return dict(decode(record), position=record['position'], problem='')

  def decode_chunk(chunk: records.Record) -> tf.data.Dataset:
    stored = tf.data.Dataset.from_tensor_slices(chunk)
    decoded = stored.map(decode_one)
    failures = bad_records.failures(
      source, preprocessing.image_shape, decoded.element_spec
    )
    failures = [functools.partial(_with_position, f) for f in failures]
    # Only if one of them fails does the chunk pay for saying which.
    singly = stored.flat_map(
      lambda record: bad_records.first_successful(record, decode_one, *failures)
    )
    together = decoded.batch(size, True).ignore_errors()
    return together.concatenate(singly.batch(size, True)).take(1)

  def join(chunks: Batch) -> Batch:
    return {
      key: tf.reshape(value, [batch_size, *value.shape[2:]])
      for key, value in chunks.items()
    }

  # Every chunk gives one element, so that the order is that of the chunks for
  # any number of them at a time.
  chunks = stream.batch(size, True).interleave(
    decode_chunk,
    cycle_length=tf.data.AUTOTUNE,
    num_parallel_calls=tf.data.AUTOTUNE,
    deterministic=True,
  )
  return chunks.batch(batch_size // size, True).map(join)


def _finish_training(
  config: config_lib.Config, num_classes: int, repairs: bool, batch: Batch
) -> Batch:
  if repairs:
    is_good = tf.reduce_all(batch['valid'])
    batch = tf.cond(is_good, lambda: batch, lambda: bad_records.replace(batch))
  del batch['valid']
  batch['seed'] = _seeds(config.train.seed, batch.pop('position'))
  for key in {'image', 'augmented_image'} & set(batch):
    batch[key] = preprocessing.normalize(batch[key])
  if config.mixes:
    return mixing.mix(batch, config.data, num_classes)
  return batch


def _finish_evaluation(seed: int, count: int, batch: Batch) -> Batch:
  position = batch.pop('position')
  counts = batch.pop('valid') & (position < count)
  return {
    **batch,
    'image': preprocessing.normalize(batch['image']),
    'position': tf.cast(position, tf.int32),
    'seed': _seeds(seed, position),
    'weight': tf.cast(counts, tf.float32),
  }
