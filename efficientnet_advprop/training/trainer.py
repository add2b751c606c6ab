"""A training run: its state, checkpoints, evaluations and resumption."""

from collections.abc import Mapping
import functools
import os
import time
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import devices
from efficientnet_advprop import execution
from efficientnet_advprop.base import disposal
from efficientnet_advprop.base import paths
from efficientnet_advprop.data import caching
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.data import sources
from efficientnet_advprop.methods import passes
from efficientnet_advprop.models import factory
from efficientnet_advprop.training import attack_picture
from efficientnet_advprop.training import best as best_lib
from efficientnet_advprop.training import boundaries
from efficientnet_advprop.training import finite
from efficientnet_advprop.training import host_loop
from efficientnet_advprop.training import optimizers
from efficientnet_advprop.training import precision
from efficientnet_advprop.training import reporting
from efficientnet_advprop.training import resuming
from efficientnet_advprop.training import step as step_lib
from efficientnet_advprop.training import stopping
from efficientnet_advprop.weights import checkpoints
from efficientnet_advprop.weights import transfer

# Evaluates the network after a step; returns its scores by their names.
Evaluate = Callable[[int], Mapping[str, float]]


class Trainer:
  """A run in a model_dir: a new one, or one that resumes."""

  def __init__(
    self,
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    model_dir: str,
  ):
    """Creates the variables and restores the newest checkpoint, if any.

    Args:
      config: the run.
      strategy: where the steps run.
      model_dir: folder of checkpoints, metrics and summaries.

    Raises:
      ConfigError: the batch size does not divide, or the devices cannot do
        what `train.compile` asks for.
      CheckpointError: the model_dir's checkpoints cannot be read, or, in a new
        run, that of `train.init_checkpoint`.
    """
    self.config = config
    self.strategy = strategy
    self.model_dir = model_dir
    self.execution = execution.choose(strategy, config.train.compile)
    parts = config.train.accumulation_steps * strategy.num_replicas_in_sync
    if config.train.batch_size % parts:
      allowed = f'a multiple of {parts}, replicas x train.accumulation_steps'
      raise config_lib.ConfigError(
        'train.batch_size', config.train.batch_size, allowed
      )
    _check_groups(config, strategy.num_replicas_in_sync)
    tf.keras.mixed_precision.set_global_policy(config.train.precision)
    tf.keras.utils.set_random_seed(config.train.seed)
    with strategy.scope():
      self.model = self._create_model()
      with precision.policy(config.train.evaluation_precision):
        self.average = self._create_model()
      self.optimizer = optimizers.create_optimizer(config, self.model)
    checkpoint = tf.train.Checkpoint(
      model=self.model, ema=self.average, optimizer=self.optimizer
    )
    self._manager = checkpoints.CheckpointManager(
      checkpoint,
      os.path.join(model_dir, paths.CHECKPOINTS),
      config.train.keep_checkpoints,
      self.is_chief,
      precision.reader(checkpoint),
    )
    self.restored = self._manager.restore()
    if self.restored is None:
      if config.train.init_checkpoint is not None:
        transfer.initialize(self.model, config.train.init_checkpoint)
      for shadow, variable in zip(self.average.variables, self.model.variables):
        shadow.assign(variable)
    self._last_saved = self.step
    self._first_update = resuming.first_update(model_dir, self.step)
    self._best: Optional[best_lib.Best] = None
    if config.train.keep_best:
      self._best = best_lib.Best(config, checkpoint, model_dir, self.is_chief)
    self._stopper = stopping.Stopper()
    self._context: Optional[tf.distribute.InputContext] = None

  def _create_model(self) -> tf.keras.Model:
    return factory.create_model(
      self.config.model,
      self.config.data.num_classes,
      self.config.auxiliary_domains,
      synchronized=self.strategy.num_replicas_in_sync > 1,
      compiled=self.execution.layers,
      rematerialized=self.config.train.rematerialize,
    )

  @property
  def is_chief(self) -> bool:
    """Whether this process is the one that writes files."""
    return devices.is_chief(self.strategy)

  @property
  def step(self) -> int:
    """Number of updates that were made."""
    return int(self.optimizer.iterations.numpy())

  @functools.cached_property
  def _writer(self) -> tf.summary.SummaryWriter:
    """Writer of the TensorBoard summaries; its first use creates the file."""
    if not self.is_chief:
      return tf.summary.create_noop_writer()
    summaries = os.path.join(self.model_dir, paths.SUMMARIES)
    return tf.summary.create_file_writer(summaries)

  def train(self, evaluate: Optional[Evaluate] = None) -> None:
    """Trains to the last step, or until `train.patience` is at its end.

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
    if self._best is not None:
      self._best.resume(step)
    reporter: Optional[reporting.Reporter] = None
    watched = devices.lost_workers_named(self.strategy)
    disposing = disposal.disposing(
      iter(self._dataset(step)), devices.has_workers(self.strategy)
    )
    loop = host_loop.HostLoop(
      config,
      self.strategy,
      self.execution,
      self._update,
      self.optimizer,
      self._begin,
    )
    with disposing as held, watched, self._stopper, loop.watching():
      # The last run may have been stopped during this evaluation.
      if step and boundaries.is_evaluated(step, config):
        self._evaluate(evaluate, step)
      while step < config.train_steps and not self._is_settled():
        end = boundaries.next_boundary(step, config)
        metrics, timing = loop.run(held[0], step, end, self._last_saved)
        if reporter is None:
          reporter = reporting.Reporter(
            config, self.model_dir, self._writer, step, self.is_chief
          )
        reporter.interval(end, metrics, timing)
        step = end
        evaluates = boundaries.is_evaluated(step, config)
        stops = self._stops()
        if stops or evaluates or boundaries.is_saved(step, config):
          reporter.spent('save', _seconds(self._save, step))
        if evaluates and not (stops and step < config.train_steps):
          seconds = _seconds(self._evaluate, evaluate, step)
          reporter.spent('evaluate', seconds)
          stops = self._stops()
        if stops and step < config.train_steps:
          raise stopping.StoppedError(
            f'stopped at step {step}; the state is saved'
          )

  def _dataset(self, step: int) -> tf.distribute.DistributedDataset:
    """Opens the training data from a step on."""
    config = self.config
    source = sources.find(config.data, config.data.train_split)
    source = caching.training(config, source)

    def dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
      self._context = context
      if step:
        resuming.check_layout(config, source, context, self.model_dir)
      return pipeline.train_dataset(
        config, source, step, context, config.two_views
      )

    return self.strategy.distribute_datasets_from_function(dataset)

  def _update(self, batch: passes.Batch) -> tf.Tensor:
    """Makes one update from a replica's share of a batch, in a graph."""
    return step_lib.train_step(
      self.model,
      self.average,
      self.optimizer,
      batch,
      self.config,
      self._first_update,
    )

  def _begin(self, step: int) -> None:
    """Records the run, now that a first step after `step` was made."""
    if not self.is_chief:
      return
    tf.io.gfile.makedirs(self.model_dir)
    if not step:
      assert self._context is not None
      resuming.record_layout(self._context, self.model_dir)
    resuming.record_settings(self.config, self.model_dir, step)

  def _save(self, step: int) -> None:
    finite.check_weights(self.model.trainable_variables, step, self._last_saved)
    self._manager.save(step)
    self._last_saved = step

  def _evaluate(self, evaluate: Optional[Evaluate], step: int) -> None:
    if evaluate is None:
      return
    scores = evaluate(step)
    self.write_scalars(step, scores, 'eval')
    if self._best is not None:
      self._best.judge(step, scores)

  def _is_settled(self) -> bool:
    """Whether `train.patience` evaluations have brought no better one."""
    return self._best is not None and self._best.is_settled

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
    shown = attack_picture.attacked(
      self.average, self.config, domain, num_images
    )
    pixels = attack_picture.draw(shown, self.config.attack.epsilon)
    path = os.path.join(self.model_dir, paths.ATTACK_PICTURE)
    if self.is_chief:
      attack_picture.write_png(path, pixels)
    with self._writer.as_default(self.step):
      tf.summary.image('attack', pixels[np.newaxis])
    self._writer.flush()
    return path

  def _stops(self) -> bool:
    """Whether a signal has arrived, here or at another worker.

    All must agree, for all of them save.
    """
    strategy, requested = self.strategy, self._stopper.requested
    if not devices.has_workers(strategy):
      return requested

    @tf.function
    def count(own: tf.Tensor) -> tf.Tensor:
      flags = strategy.run(tf.identity, args=(own,))
      return strategy.reduce(tf.distribute.ReduceOp.SUM, flags, axis=None)

    return bool(count(tf.constant(float(requested))) > 0)


def _check_groups(config: config_lib.Config, replicas: int) -> None:
  """Raises ConfigError if passes do not divide into `train.norm_groups`."""
  train = config.train
  groups = train.norm_groups
  rows = [train.batch_size // train.accumulation_steps]
  if train.method == 'fast_advprop':
    others = round(rows[0] * train.fast_fraction)
    rows = [rows[0] - others, others]
  divides = not (groups % replicas and replicas % groups)
  if not divides or any(count % max(groups, replicas) for count in rows):
    sizes = ' and '.join(map(str, rows))
    allowed = (
      f'a number that divides {sizes} images and fits {replicas} replicas'
    )
    raise config_lib.ConfigError('train.norm_groups', groups, allowed)


def _seconds(action: Callable[..., None], *arguments: Any) -> float:
  """Runs an action; returns how long it took."""
  began = time.monotonic()
  action(*arguments)
  return time.monotonic() - began
