import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import checkpoints
from tools import soak


def _soak(*flags):
  command = [sys.executable, '-m', 'tools.soak', *flags]
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  return json.loads(done.stdout.splitlines()[-1])


def _train(tmp_path, monkeypatch, processes):
  """A run of three steps; its newest checkpoint's tensors and its losses."""
  flags = {'processes': processes, 'replicas': 1, 'steps': 4}
  monkeypatch.setattr(soak, 'FLAGS', type('Flags', (), flags))
  model_dir = tmp_path / str(processes) / 'run'
  model_dir.mkdir(parents=True)
  soak._finish(model_dir)
  newest = checkpoints.checkpoint_paths(str(model_dir / 'checkpoints'))[0]
  reader = tf.train.load_checkpoint(newest)
  names = sorted(reader.get_variable_to_shape_map())
  tensors = [reader.get_tensor(n) for n in names if not n.startswith('_CHECK')]
  return tensors, soak.fingerprint(model_dir)[1]


def test_two_processes_equal_one_device(tmp_path, monkeypatch):
  """The same losses and state on the same global batches, a row a step."""
  one, one_lines = _train(tmp_path, monkeypatch, 1)
  two, two_lines = _train(tmp_path, monkeypatch, 2)
  assert [line['step'] for line in two_lines] == [1, 2, 3, 4]
  for ours, theirs in zip(two_lines, one_lines):
    assert ours == pytest.approx(theirs, rel=1e-4)
  assert len(one) == len(two) > 100
  for ours, theirs in zip(two, one):
    scale = max(0.1, np.abs(theirs).max())
    assert np.abs(ours - theirs).max() < 3e-4 * scale


@pytest.mark.slow
@pytest.mark.parametrize('flag', ['replicas', 'processes'])
@pytest.mark.parametrize('number', [1, 2])
def test_killed_runs_end_as_others_do(flag, number):
  result = _soak('--kills=2', '--steps=12', f'--{flag}={number}')
  assert result['tried'] == result['equal'] == 2
