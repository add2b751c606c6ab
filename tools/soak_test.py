import json
import subprocess
import sys

import pytest
import tensorflow as tf

from tools import soak
from tools.measuring import soaking


def _soak(*flags):
  command = [sys.executable, soak.__file__, *flags]
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_two_processes_equal_one_device():
  """The same losses and state on the same global batches, a row a step."""
  result = _soak('--kills=0', '--steps=4', '--processes=2')
  assert 0 < result['loss_difference'] < 1e-4
  assert 0 < result['state_difference'] < 3e-4


def _write_run(model_dir, loss, weight):
  model_dir.mkdir()
  (model_dir / 'metrics.jsonl').write_text(json.dumps({'loss': loss}) + '\n')
  checkpoint = tf.train.Checkpoint(weight=tf.Variable([0.05, weight]))
  checkpoint.write(str(model_dir / 'checkpoints' / 'ckpt-1'))
  return model_dir


def test_differences_are_relative(tmp_path):
  one = _write_run(tmp_path / 'one', 2.0, 4.0)
  two = _write_run(tmp_path / 'two', 2.5, 5.0)
  expected = {'loss_difference': 0.25, 'state_difference': 0.25}
  assert soaking.differences(two, one) == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize('layout', ['replicas=1', 'replicas=2', 'processes=2'])
def test_killed_runs_end_as_others_do(layout):
  result = _soak('--kills=2', '--steps=12', f'--{layout}')
  assert result['tried'] == result['equal'] == 2
