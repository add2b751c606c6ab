import json
import os

import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.training import best as best_lib


class _Run:
  """Evaluations of a run whose only weight is its step."""

  def __init__(self, model_dir, metric='top_1_accuracy', patience=None):
    train = {'keep_best': metric, 'patience': patience}
    config = config_lib.from_dict({'train': train})
    self.folder = str(model_dir)
    self.weight = tf.Variable(0)
    checkpoint = tf.train.Checkpoint(weight=self.weight)
    self.best = best_lib.Best(config, checkpoint, self.folder, True)
    self.metric = metric

  def judge(self, step, score):
    self.weight.assign(step)
    self.best.judge(step, {self.metric: score})

  def saved(self):
    path = tf.train.latest_checkpoint(os.path.join(self.folder, 'best'))
    return tf.train.load_variable(path, 'weight/.ATTRIBUTES/VARIABLE_VALUE')


@pytest.mark.parametrize(
  'metric, scores, steps',
  [
    ('top_1_accuracy', [0.1, 0.3, 0.2, 0.3], [1, 2, 2, 2]),
    ('loss', [3.0, 2.0, 2.5, 1.0], [1, 2, 2, 4]),
  ],
)
def test_the_best_checkpoint_is_kept(tmp_path, metric, scores, steps):
  run = _Run(tmp_path, metric)
  for step, (score, expected) in enumerate(zip(scores, steps), 1):
    run.judge(step, score)
    assert run.saved() == expected
  saved = json.loads((tmp_path / 'best.json').read_text())
  assert saved['metric'] == metric and saved['best_step'] == steps[-1]


def test_training_ends_after_its_patience(tmp_path):
  run = _Run(tmp_path, patience=2)
  ends = []
  for step, score in enumerate([0.1, 0.2, 0.15, 0.3, 0.3, 0.2], 1):
    run.judge(step, score)
    ends.append(run.best.is_settled)
  assert ends == [False] * 5 + [True]


def test_a_resumed_run_decides_as_an_uninterrupted_one(tmp_path):
  first = _Run(tmp_path, patience=2)
  for step, score in enumerate([0.1, 0.3, 0.2, 0.2], 1):
    first.judge(step, score)
  assert first.best.is_settled
  # It was killed before the checkpoint of step 4 was whole.
  second = _Run(tmp_path, patience=2)
  second.best.resume(3)
  assert not second.best.is_settled
  second.judge(4, 0.2)
  assert second.best.is_settled and second.saved() == 2


def test_patience_needs_a_metric():
  with pytest.raises(config_lib.ConfigError, match=r'patience: got 2; .*loss'):
    config_lib.from_dict({'train': {'patience': 2}})
