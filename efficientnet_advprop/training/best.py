"""Keeps the best checkpoint, and says when training no longer improves.

`best.json` holds the score of every evaluation. The best checkpoint and the end
of the patience follow from it, so that a run that resumes decides as one that
was never interrupted.
"""

from collections.abc import Mapping
import json
import os

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import files
from efficientnet_advprop.base import paths
from efficientnet_advprop.weights import checkpoints


class Best:
  """The best checkpoint of a run by a metric of its evaluations."""

  def __init__(
    self,
    config: config_lib.Config,
    checkpoint: tf.train.Checkpoint,
    model_dir: str,
    writes: bool,
  ):
    """Reads the scores of earlier evaluations, if there are any.

    Args:
      config: the run; `train.keep_best` names the metric.
      checkpoint: what to save.
      model_dir: folder of the run.
      writes: whether this process is the one that writes files.
    """
    assert config.train.keep_best is not None
    self._metric: str = config.train.keep_best
    self._patience = config.train.patience
    self._path = os.path.join(model_dir, paths.BEST_SCORES)
    self._manager = checkpoints.CheckpointManager(
      checkpoint, os.path.join(model_dir, paths.BEST), 1, writes
    )
    self._writes = writes
    self._scores: dict[int, float] = {}
    if tf.io.gfile.exists(self._path):
      with tf.io.gfile.GFile(self._path) as file:
        saved = json.load(file)
      if saved['metric'] == self._metric:
        self._scores = {int(k): v for k, v in saved['scores'].items()}

  def resume(self, step: int) -> None:
    """Forgets the evaluations after `step`, which the run makes again."""
    self._scores = {k: v for k, v in self._scores.items() if k <= step}

  def judge(self, step: int, scores: Mapping[str, float]) -> None:
    """Notes an evaluation; keeps the checkpoint if it is the best so far.

    Args:
      step: number of updates of the evaluated weights, which are the current
        ones.
      scores: metrics by their names.
    """
    self._scores[step] = scores[self._metric]
    best = self._best_step()
    if best == step:
      self._manager.save(step)
    if self._writes:
      values = {
        'metric': self._metric,
        'best_step': best,
        'scores': {str(k): v for k, v in sorted(self._scores.items())},
      }
      files.write_json(self._path, values, indent=2)
    if self.is_settled:
      logging.info(
        'Training ends early: no better %s than that of step %d (%.4g) in %d'
        ' evaluations',
        self._metric,
        best,
        self._scores[best],
        self._patience,
      )

  @property
  def is_settled(self) -> bool:
    """Whether the last `train.patience` evaluations brought no better score."""
    if self._patience is None or not self._scores:
      return False
    best = self._best_step()
    return sum(step > best for step in self._scores) >= self._patience

  def _best_step(self) -> int:
    """Returns the step of the best score, the first of equal ones."""
    sign = -1 if self._metric == 'loss' else 1
    return max(self._scores, key=lambda k: (sign * self._scores[k], -k))
