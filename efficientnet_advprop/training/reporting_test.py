import json
import logging as python_logging

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.training import reporting

_CONFIG = config_lib.from_dict(
  {
    'data': {'num_train_images': 100},
    'train': {'batch_size': 10, 'epochs': 5, 'log_steps': 10},
  }
)
_METRICS = {
  'loss': 3.5,
  'clean_loss': 1.25,
  'adversarial_loss': 2.0,
  'learning_rate': 0.1,
}


def _reporter(path, start=0):
  writer = tf.summary.create_file_writer(str(path / 'summaries'))
  return reporting.Reporter(_CONFIG, str(path), writer, start)


def _lines(tmp_path):
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_a_line_holds_what_users_rely_on(tmp_path, caplog):
  reporter = _reporter(tmp_path)
  with caplog.at_level(python_logging.INFO, 'absl'):
    reporter.interval(1, _METRICS, reporting.Timing(1, 50, compiles=True))
    reporter.interval(20, _METRICS, reporting.Timing(10, 2.0, waited=0.1))
  assert _lines(tmp_path)[1] == {
    'step': 20,
    'epoch': 2.0,
    **_METRICS,
    'images_per_second': 50.0,
    'input_wait': 0.05,
  }
  # The compilation is no part of the estimate, and allows none by itself.
  assert caplog.messages[0].endswith('images/s')
  assert caplog.messages[-1] == (
    'step 20/50  epoch 2.0  loss 3.500 (clean 1.250 adversarial 2.000)'
    '  50 images/s  0:06 left'
  )


def test_the_log_names_a_slow_input(tmp_path, caplog):
  reporter = _reporter(tmp_path)
  with caplog.at_level(python_logging.INFO, 'absl'):
    reporter.interval(20, _METRICS, reporting.Timing(10, 2.0, waited=0.7))
  assert '  50 images/s  35% waiting for input  0:06 left' in caplog.text


def test_the_time_left_counts_checkpoints_and_evaluations(tmp_path, caplog):
  """At step 10 of 50: 4 more checkpoints, one evaluation."""
  reporter = _reporter(tmp_path)
  reporter.spent('save', 5.0)
  reporter.spent('evaluate', 60.0)
  with caplog.at_level(python_logging.INFO, 'absl'):
    reporter.interval(10, _METRICS, reporting.Timing(10, 10.0))
  assert caplog.messages[-1].endswith('  2:00 left')


def test_resuming_drops_later_and_broken_lines(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text('{"step": 10}\n{"step": 20}\n{"step": 30}\n{"ste')
  _reporter(tmp_path, start=20)
  assert path.read_text() == '{"step": 10}\n{"step": 20}\n'
