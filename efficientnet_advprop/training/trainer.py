"""The training loop: a compiled step, a host loop, checkpoints, resumption."""

from collections.abc import Iterator, Mapping
import contextlib
import os
import signal
import threading
import time
from typing import Any, Callable, Optional

from absl import logging
import numpy as np
import tensorflow as tf

from efficientnet_advprop import attacks
from efficientnet_advprop import config as config_lib
from efficientnet_advprop import devices
from efficientnet_advprop import losses as losses_lib
from efficientnet_advprop.base import paths
from efficientnet_advprop.data import bad_records
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.data import sources
from efficientnet_advprop.methods import gradients as gradients_lib
from efficientnet_advprop.methods import passes
from efficientnet_advprop.models import factory
from efficientnet_advprop.training import attack_picture
from efficientnet_advprop.training import finite
from efficientnet_advprop.training import optimization
from efficientnet_advprop.training import reporting
from efficientnet_advprop.training import resuming
from efficientnet_advprop.weights import checkpoints
from efficientnet_advprop.weights import transfer


class StoppedError(Exception):
  """SIGTERM or SIGINT arrived; the state is saved."""


# Plain Python, which AutoGraph would take seconds to rewrite.
@tf.autograph.experimental.do_not_convert
def train_step(
  model: tf.keras.Model,
  average: tf.keras.Model,
  optimizer: tf.keras.optimizers.Optimizer,
  batch: passes.Batch,
  config: config_lib.Config,
) -> tf.Tensor:
  """One update on one replica's share of a global batch.

  Args:
    model: the network.
    average: its moving average, updated too.
    optimizer: whose `iterations` is the step.
    batch: `image`, `label` and `seed` of this replica.
    config: of the run.

  With `train.accumulation_steps` the batch is cut into parts, attacked and run
  one after another. The update is that of the sum of their gradients; each
  part's norms see that part alone, and move once for each.

  Returns:
    Losses, float32 [1 + passes], as this replica's share of a sum over
    replicas: the total (weight penalty included), then each pass's own.
  """
  variables = model.trainable_variables
  parts = config.train.accumulation_steps
  size = batch['label'].shape[0] // parts
  losses, gradients = _part_of_step(
    model, _part(batch, 0, size), config, optimizer.iterations
  )
  for index in range(1, parts):
    # Not before the part in front is done and its memory free.
    with tf.control_dependencies([losses, *gradients]):
      part = _part(batch, index, size)
    more = _part_of_step(model, part, config, optimizer.iterations)
    losses += more[0]
    gradients = [a + b for a, b in zip(gradients, more[1])]
  decay = optimization.average_decay(
    optimizer.iterations, config.train.ema_decay
  )
  optimizer.apply_gradients(zip(gradients, variables))
  optimization.update_average(average, model, decay)
  return losses


def _part(batch: passes.Batch, index: int, size: int) -> passes.Batch:
  """Rows `index * size` and so on of a batch."""
  start = index * size
  return {name: values[start : start + size] for name, values in batch.items()}


def _part_of_step(
  model: tf.keras.Model,
  batch: passes.Batch,
  config: config_lib.Config,
  step: tf.Tensor,
) -> gradients_lib.Result:
  """The losses and gradients of a part of the global batch."""
  parts = tf.distribute.get_strategy().num_replicas_in_sync
  parts *= config.train.accumulation_steps
  decayed = optimization.decayed_variables(model)
  return gradients_lib.of_part(
    model,
    batch,
    config,
    step,
    parts,
    lambda: losses_lib.weight_penalty(decayed, config.train.weight_decay),
  )


class Trainer:
  """A run in a model_dir: created anew, or where an earlier one stopped."""

  def __init__(
    self,
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    model_dir: str,
  ):
    """Creates the variables and restores the newest checkpoint, if any.

    Args:
      config: of the run.
      strategy: where the steps run.
      model_dir: for checkpoints, metrics and summaries.

    Raises:
      ConfigError: the batch size does not divide.
      CheckpointError: the model_dir's checkpoints cannot be read, or, in a new
        run, that of `train.init_checkpoint`.
    """
    self.config = config
    self.strategy = strategy
    self.model_dir = model_dir
    parts = config.train.accumulation_steps * strategy.num_replicas_in_sync
    if config.train.batch_size % parts:
      allowed = f'a multiple of {parts}, replicas x train.accumulation_steps'
      raise config_lib.ConfigError(
        'train.batch_size', config.train.batch_size, allowed
      )
    tf.keras.mixed_precision.set_global_policy(config.train.precision)
    tf.keras.utils.set_random_seed(config.train.seed)
    with strategy.scope():
      self.model = self._create_model()
      self.average = self._create_model()
      self.optimizer = optimization.create_optimizer(config, self.model)
    checkpoint = tf.train.Checkpoint(
      model=self.model, ema=self.average, optimizer=self.optimizer
    )
    self._manager = checkpoints.CheckpointManager(
      checkpoint,
      os.path.join(model_dir, paths.CHECKPOINTS),
      config.train.keep_checkpoints,
      self.is_chief,
    )
    self.restored = self._manager.restore()
    if self.restored is None:
      if config.train.init_checkpoint is not None:
        transfer.initialize(self.model, config.train.init_checkpoint)
      for shadow, variable in zip(self.average.variables, self.model.variables):
        shadow.assign(variable)
    self._last_saved = self.step
    self._stop = False
    self._writer = tf.summary.create_noop_writer()
    if self.is_chief:
      summaries = os.path.join(model_dir, paths.SUMMARIES)
      self._writer = tf.summary.create_file_writer(summaries)

  def _create_model(self) -> tf.keras.Model:
    return factory.create_model(
      self.config.model,
      self.config.data.num_classes,
      self.config.auxiliary_domains,
      synchronized=self.strategy.num_replicas_in_sync > 1,
      compiled=devices.compiles_layers(self.strategy),
      rematerialized=self.config.train.rematerialize,
    )

  @property
  def is_chief(self) -> bool:
    """Whether this process is the one that writes files."""
    return devices.is_chief(self.strategy)

  @property
  def step(self) -> int:
    return int(self.optimizer.iterations.numpy())

  def train(self, evaluate: Optional[Callable[[int], None]] = None) -> None:
    """Trains to the last step.

    Args:
      evaluate: called with the step every `train.eval_epochs` epochs and after
        the last step, always after a checkpoint.

    Raises:
      ConfigError: the run began on other replicas, which its settings forbid.
      DataError: the training images are missing or damaged.
      TrainingError: a loss or the weights are not finite.
      WorkerLostError: another worker has ended.
      StoppedError: a signal arrived; the state is saved.
    """
    config, step = self.config, self.step
    reporter = reporting.Reporter(
      config, self.model_dir, self._writer, step, self.is_chief
    )

    source = sources.find(config.data, config.data.train_split)

    def dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
      if self.restored:
        resuming.check(config, source, context, self.model_dir)
      elif self.is_chief:
        resuming.record(context, self.model_dir)
      return pipeline.train_dataset(
        config, source, step, context, config.two_views
      )

    iterator = iter(self.strategy.distribute_datasets_from_function(dataset))
    run_steps = self._compile_steps()
    watched = devices.lost_workers_named(self.strategy)
    with watched, _signals(self._request_stop):
      if evaluate is not None and step and is_evaluated(step, config):
        evaluate(step)  # The run may have ended in the midst of it.
      while step < config.train_steps:
        end = next_boundary(step, config)
        metrics, seconds = self._interval(run_steps, iterator, step, end)
        reporter.interval(end, metrics, end - step, seconds)
        step = end
        evaluates = is_evaluated(step, config)
        stops = self._stops()
        if stops or evaluates or is_saved(step, config):
          self._save(step)
        if stops and step < config.train_steps:
          raise StoppedError(f'stopped at step {step}; the state is saved')
        if evaluate is not None and evaluates:
          evaluate(step)

  def _save(self, step: int) -> None:
    finite.check_weights(self.model.trainable_variables, step, self._last_saved)
    self._manager.save(step)
    self._last_saved = step

  def write_scalars(
    self, step: int, values: Mapping[str, float], group: str
  ) -> None:
    """Adds scalars `group/name` to the TensorBoard summaries."""
    reporting.write_scalars(self._writer, step, values, group)

  def draw_attack(self, num_images: int = 8) -> Optional[str]:
    """Draws the attack on a few evaluation images through auxiliary norms.

    Returns:
      The path of a PNG, also shown by TensorBoard; None if the training method
      has no adversarial domain.
    """
    domain = 'adversarial'
    if domain not in self.config.auxiliary_domains:
      return None
    data = self.config.data
    dataset = pipeline.eval_dataset(
      self.config, sources.find(data, data.eval_split), batch_size=num_images
    )
    batch = next(iter(dataset))

    @tf.function
    def attack(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
      return attacks.attack(
        lambda x: self.average(x, training=False, domain=domain),
        images,
        labels,
        self.config.attack,
        tf.constant([0, 0]),
      )

    adversarial = attack(batch['image'], batch['label'])
    pixels = attack_picture.attack_grid(
      batch['image'].numpy(), adversarial.numpy()
    )
    path = os.path.join(self.model_dir, paths.ATTACK_PICTURE)
    if self.is_chief:
      attack_picture.write_png(path, pixels)
    with self._writer.as_default(self.step):
      tf.summary.image('attack', pixels[np.newaxis])
    self._writer.flush()
    return path

  def _request_stop(self) -> None:
    logging.info('Signal received: stopping after this log interval')
    self._stop = True

  def _stops(self) -> bool:
    """Whether a signal has arrived, here or at another worker.

    All must agree, for all of them save.
    """
    strategy = self.strategy
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
      return self._stop

    @tf.function
    def count(own: tf.Tensor) -> tf.Tensor:
      flags = strategy.run(tf.identity, args=(own,))
      return strategy.reduce(tf.distribute.ReduceOp.SUM, flags, axis=None)

    return bool(count(tf.constant(float(self._stop))) > 0)

  def _compile_steps(self) -> Callable[..., tf.Tensor]:
    """The host loop: steps on all replicas, summing up their losses."""
    strategy, config = self.strategy, self.config

    def replica_step(batch: passes.Batch) -> tf.Tensor:
      return train_step(self.model, self.average, self.optimizer, batch, config)

    num_losses = 1 + len(gradients_lib.loss_names(config))

    @tf.function
    def run_steps(iterator: Any, num_steps: tf.Tensor) -> Any:
      totals = bad = tf.zeros([num_losses])
      found = tf.constant(-1)
      for index in tf.range(num_steps):
        losses = strategy.run(replica_step, args=(next(iterator),))
        losses = strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)
        found, bad = finite.first_bad(losses, index, found, bad)
        totals += losses
      return totals, found, bad

    return run_steps

  def _interval(
    self,
    run_steps: Callable[..., tf.Tensor],
    iterator: Any,
    start: int,
    end: int,
  ) -> Any:
    """Runs steps `start` to `end`; returns their mean losses and seconds."""
    began = time.monotonic()
    with bad_records.data_errors():
      results = run_steps(iterator, tf.constant(end - start))
      sums, found, bad = (result.numpy() for result in results)
    seconds = time.monotonic() - began
    names = 'loss', *gradients_lib.loss_names(self.config)
    schedule = optimization.learning_rate(self.config)
    if found >= 0:
      step = start + int(found)
      losses = dict(zip(names, bad.tolist()))
      rate = float(schedule(tf.constant(step)))
      raise finite.stop(step + 1, losses, rate, self._last_saved)
    metrics = dict(zip(names, (sums / (end - start)).tolist()))
    metrics['learning_rate'] = float(schedule(tf.constant(end - 1)))
    return metrics, seconds


def next_boundary(step: int, config: config_lib.Config) -> int:
  """The next step at which the host looks: to log, and perhaps to save."""
  log_steps = config.train.log_steps
  boundary = (step // log_steps + 1) * log_steps
  return min(boundary, config.train_steps)


def _is_due(step: int, every: float, config: config_lib.Config) -> bool:
  """Whether a multiple of `every` lies in the log interval that ends here."""
  log_steps = config.train.log_steps
  previous = (step - 1) // log_steps * log_steps
  return step == config.train_steps or step // every > previous // every


def is_saved(step: int, config: config_lib.Config) -> bool:
  """Whether a checkpoint is due at this boundary."""
  every = config.train.checkpoint_steps or config.steps_per_epoch
  return _is_due(step, every, config)


def is_evaluated(step: int, config: config_lib.Config) -> bool:
  """Whether an evaluation is due at this boundary."""
  return _is_due(
    step, config.train.eval_epochs * config.steps_per_epoch, config
  )


@contextlib.contextmanager
def _signals(request_stop: Callable[[], None]) -> Iterator[None]:
  """Calls `request_stop` on SIGTERM and SIGINT, while the context lasts."""
  if threading.current_thread() is not threading.main_thread():
    yield  # Only the main thread may handle signals.
    return
  numbers = signal.SIGTERM, signal.SIGINT
  previous = [signal.signal(n, lambda *_: request_stop()) for n in numbers]
  try:
    yield
  finally:
    for number, handler in zip(numbers, previous):
      signal.signal(number, handler)
