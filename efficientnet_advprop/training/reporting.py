"""What a run tells while it goes: log lines, metrics.jsonl, TensorBoard."""

from collections.abc import Mapping
import json
import os

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import files
from efficientnet_advprop.base import paths
from efficientnet_advprop.base import progress


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
    """Opens the files, without the lines that a resumed run will write again.

    Args:
      config: of the run.
      model_dir: where `metrics.jsonl` lies.
      writer: of the TensorBoard summaries.
      start: the step from which the run goes on.
      writes: whether this process is the one that writes metrics.jsonl.
    """
    self._config = config
    self._path = os.path.join(model_dir, paths.METRICS)
    self._writer = writer
    self._writes = writes
    if writes:
      _drop_lines_after(self._path, start)
    # A step's, in each interval; evaluations and checkpoints do not count.
    self._seconds: list[float] = []

  def interval(
    self, step: int, metrics: dict[str, float], steps: int, seconds: float
  ) -> None:
    """Reports an interval of `steps` steps that ended with `step`."""
    config = self._config
    rate = steps * config.train.batch_size / seconds
    self._seconds.append(seconds / steps)
    values = {
      'step': step,
      'epoch': round(step / config.steps_per_epoch, 4),
      **metrics,
      'images_per_second': round(rate, 2),
    }
    if self._writes:
      with tf.io.gfile.GFile(self._path, 'a') as file:
        file.write(json.dumps(values) + '\n')
    scalars = {**metrics, 'images_per_second': rate}
    write_scalars(self._writer, step, scalars, 'train')
    logging.info('%s', self._line(step, metrics, rate))

  def _line(self, step: int, metrics: dict[str, float], rate: float) -> str:
    total = self._config.train_steps
    losses = ' '.join(
      f'{name[:-5]} {value:.3f}'
      for name, value in metrics.items()
      if name.endswith('_loss')
    )
    # The first interval compiles the step and would spoil the estimate.
    timed = self._seconds[1:][-10:] or self._seconds
    left = (total - step) * sum(timed) / len(timed)
    return (
      f'step {step}/{total}  epoch {step / self._config.steps_per_epoch:.1f}'
      f'  loss {metrics["loss"]:.3f} ({losses})'
      f'  {rate:.0f} images/s  {progress.format_seconds(left)} left'
    )


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
