"""Intervals of training steps that run as one compiled loop."""

from collections.abc import Iterator
import contextlib
import functools
import time
from typing import Any, Callable

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import execution as execution_lib
from efficientnet_advprop.base import progress
from efficientnet_advprop.data import bad_records
from efficientnet_advprop.methods import gradients
from efficientnet_advprop.methods import passes
from efficientnet_advprop.training import finite
from efficientnet_advprop.training import input_watch
from efficientnet_advprop.training import precision
from efficientnet_advprop.training import reporting
from efficientnet_advprop.training import schedules
from efficientnet_advprop.training import step as step_lib


class HostLoop:
  """Runs the steps of an interval on all replicas, without returning between.

  The official code calls it the host training loop (`iterations_per_loop`).
  """

  def __init__(
    self,
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    execution: execution_lib.Execution,
    update: Callable[[passes.Batch], tf.Tensor],
    optimizer: tf.keras.optimizers.Optimizer,
    begin: Callable[[int], None],
  ):
    """Compiles nothing yet; the first step does.

    Args:
      config: the run.
      strategy: where the steps run.
      execution: how they are compiled.
      update: makes one update from a replica's share of a batch and returns
        what `step.train_step` does.
      optimizer: that of `update`.
      begin: called once with the number of updates before the first step that
        was made here, as soon as that step has proven that the data and the
        settings work.
    """
    self._config = config
    self._strategy = strategy
    self._execution = execution
    self._optimizer = optimizer
    self._begin = begin
    self._began = False
    self._watch = input_watch.InputWatch()
    if execution.step:
      update = tf.function(update, jit_compile=True)
    self._update = update

  def watching(self) -> contextlib.AbstractContextManager[None]:
    """Returns the context in which `run` measures how long steps wait."""
    return self._watch.reporting()

  def run(
    self, batches: Iterator[Any], start: int, end: int, saved: int
  ) -> tuple[dict[str, float], reporting.Timing]:
    """Runs steps `start` to `end`.

    Args:
      batches: the strategy's iterator over global batches.
      start: how many updates were made before.
      end: how many are made after it; more than `start`.
      saved: the step of the newest checkpoint, 0 for none, for messages.

    Returns:
      The means over these steps of the losses, with the learning rate of the
      last; and the time they took, without the first step of all.

    Raises:
      DataError: a record cannot be used.
      TrainingError: losses, or in float16 gradients, are not finite.
    """
    sums = finite.no_sums(len(self._names))
    done, timing = 0, None
    if not self._began:
      # The first step separately: it compiles, and proves that the data and
      # the settings work before anything of the run is written.
      logging.info('Compiling the training step; large networks take minutes')
      sums, timing = self._run(batches, start, 0, 1, sums, saved)
      logging.info(
        'Compiled, and the first step made, in %s',
        progress.format_seconds(timing.seconds),
      )
      self._began = True
      self._begin(start)
      done = 1
    if end - start > done:
      sums, timing = self._run(batches, start, done, end - start, sums, saved)
    assert timing is not None
    metrics = dict(zip(self._names, finite.means(sums)))
    metrics['learning_rate'] = self._learning_rate(end - 1)
    scale = precision.loss_scale(self._optimizer)
    if scale is not None:
      metrics['loss_scale'] = float(scale.numpy())
      metrics['skipped_steps'] = int(sums.skipped.numpy())
    return metrics, timing

  @property
  def _names(self) -> tuple[str, ...]:
    return 'loss', *gradients.loss_names(self._config)

  def _learning_rate(self, step: int) -> float:
    schedule = schedules.learning_rate(self._config)
    return float(schedule(tf.constant(step)))

  def _run(
    self,
    batches: Iterator[Any],
    start: int,
    first: int,
    end: int,
    sums: finite.Sums,
    saved: int,
  ) -> tuple[finite.Sums, reporting.Timing]:
    """Runs steps `first` to `end` of the interval that begins at `start`."""
    compiles = not self._began
    began = time.monotonic()
    running = step_lib.running(self._execution, is_first=compiles)
    with bad_records.data_errors(), running:
      sums = self._steps(batches, tf.constant(first), tf.constant(end), sums)
      found = int(sums.found.numpy())
    seconds = time.monotonic() - began
    waited = min(self._watch.take_waited(), seconds)
    if found >= 0:
      step = start + found
      losses = dict(zip(self._names, sums.bad.numpy().tolist()))
      rate = self._learning_rate(step)
      is_scaled = precision.is_scaling(self._optimizer)
      raise finite.error(step + 1, losses, rate, saved, is_scaled)
    return sums, reporting.Timing(end - first, seconds, waited, compiles)

  @functools.cached_property
  def _steps(self) -> Callable[..., finite.Sums]:
    """The compiled loop, which sums the losses of its steps."""
    strategy = self._strategy

    @tf.function
    def steps(
      batches: Any, first: tf.Tensor, end: tf.Tensor, sums: finite.Sums
    ) -> finite.Sums:
      for index in tf.range(first, end):
        batch = self._watch.next(batches, sums.losses)
        scale = precision.loss_scale(self._optimizer)
        losses = strategy.run(self._update, args=(batch,))
        losses = strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)
        skipped = None
        if scale is not None:
          losses, skipped = losses[:-1], losses[-1]
        sums = finite.with_step(sums, losses, index, skipped, scale)
      return sums

    return steps
