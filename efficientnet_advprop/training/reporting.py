"""Training logs: console, metrics.jsonl, TensorBoard."""

from collections.abc import Mapping
import json
import math
import os
from typing import NamedTuple, Optional

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import files
from efficientnet_advprop.base import paths
from efficientnet_advprop.base import progress
from efficientnet_advprop.training import boundaries

# The log names the share of time that steps wait for input from here on.
_NAMED_WAIT = 0.1


class Timing(NamedTuple):
  """How long steps took.

  Attributes:
    steps: number of steps.
    seconds: duration of all of them.
    waited: seconds of these in which a step waited for its batch.
    compiles: whether the duration holds the compilation of the step.
  """

  steps: int
  seconds: float
  waited: float = 0.0
  compiles: bool = False


class Reporter:
  """Writes the metrics of each log interval to the places that show them."""

  def __init__(
    self,
    config: config_lib.Config,
    model_dir: str,
    writer: tf.summary.SummaryWriter,
    start: int,
    writes: bool = True,
  ):
    """Removes the lines of metrics.jsonl that a resumed run writes again.

    Args:
      config: the run.
      model_dir: folder of `metrics.jsonl`.
      writer: writer of the TensorBoard summaries.
      start: step from which the run resumes.
      writes: whether this process is the one that writes metrics.jsonl.
    """
    self._config = config
    self._path = os.path.join(model_dir, paths.METRICS)
    self._writer = writer
    self._writes = writes
    if writes:
      _drop_lines_after(self._path, start)
    self._timings: list[Timing] = []
    # Of the last checkpoint and the last evaluation.
    self._seconds = {'save': 0.0, 'evaluate': 0.0}

  def interval(
    self, step: int, metrics: dict[str, float], timing: Timing
  ) -> None:
    """Reports the log interval that ended with `step`."""
    config = self._config
    speed = {
      'images_per_second': timing.steps
      * config.train.batch_size
      / timing.seconds,
      'input_wait': timing.waited / timing.seconds,
    }
    self._timings.append(timing)
    values = {
      'step': step,
      'epoch': round(step / config.steps_per_epoch, 4),
      **metrics,
      'images_per_second': round(speed['images_per_second'], 2),
      'input_wait': round(speed['input_wait'], 4),
    }
    if self._writes:
      with tf.io.gfile.GFile(self._path, 'a') as file:
        file.write(json.dumps(_without_nan(values)) + '\n')
    write_scalars(self._writer, step, {**metrics, **speed}, 'train')
    logging.info('%s', self._line(step, metrics, **speed))

  def spent(self, what: str, seconds: float) -> None:
    """Notes how long a checkpoint (`save`) or an evaluation took."""
    self._seconds[what] = seconds

  def _line(
    self,
    step: int,
    metrics: dict[str, float],
    images_per_second: float,
    input_wait: float,
  ) -> str:
    losses = ' '.join(
      f'{name[:-5]} {value:.3f}'
      for name, value in metrics.items()
      if name.endswith('_loss')
    )
    scaling = ''
    if metrics.get('skipped_steps'):
      scaling = (
        f'  {metrics["skipped_steps"]} skipped, loss scale'
        f' {metrics["loss_scale"]:.0f}'
      )
    wait = ''
    if input_wait >= _NAMED_WAIT:
      wait = f'  {100 * input_wait:.0f}% waiting for input'
    return (
      f'step {step}/{self._config.train_steps}'
      f'  epoch {step / self._config.steps_per_epoch:.1f}'
      f'  loss {metrics["loss"]:.3f} ({losses}){scaling}'
      f'  {images_per_second:.0f} images/s{wait}'
      f'{self._left(step)}'
    )

  def _left(self, step: int) -> str:
    """Says the time left: steps, checkpoints and evaluations.

    Empty before a step was made without compiling.
    """
    recent = [timing for timing in self._timings if not timing.compiles][-10:]
    if not recent:
      return ''
    steps = sum(timing.steps for timing in recent)
    seconds = sum(timing.seconds for timing in recent)
    config = self._config
    saves = boundaries.saves_left(step, config)
    evaluations = boundaries.evaluations_left(step, config)
    left = (
      (config.train_steps - step) * seconds / steps
      + saves * self._seconds['save']
      + evaluations * self._seconds['evaluate']
    )
    return f'  {progress.format_seconds(left)} left'


def _without_nan(values: Mapping[str, float]) -> dict[str, Optional[float]]:
  """Replaces NaN, which JSON does not have, by null."""
  return {k: None if math.isnan(v) else v for k, v in values.items()}


def write_scalars(
  writer: tf.summary.SummaryWriter,
  step: int,
  values: Mapping[str, float],
  group: str,
) -> None:
  """Adds scalars `group/name` to the TensorBoard summaries."""
  with writer.as_default(step):
    for name, value in values.items():
      tf.summary.scalar(f'{group}/{name}', value)


def _drop_lines_after(path: str, step: int) -> None:
  """Keeps the whole lines of metrics.jsonl up to a step, atomically."""
  if not tf.io.gfile.exists(path):
    return
  kept = []
  with tf.io.gfile.GFile(path, 'rb') as file:
    for line in file.read().decode('utf-8', 'replace').splitlines():
      try:
        values = json.loads(line)
      except ValueError:
        continue  # Cut when the run was killed.
      if values['step'] <= step:
        kept.append(f'{line}\n')
  files.write(path, ''.join(kept))
