"""Faults as a user meets them: main.py in processes of their own.

docs/reliability.md lists all faults, and which test injects each.
"""

import ast
import json
import os
from pathlib import Path
import re
import shutil
import socket
import subprocess
import sys
import time

import pytest
import tensorflow as tf

from efficientnet_advprop.testing import tiny_data
from efficientnet_advprop.testing import tiny_runs
from efficientnet_advprop.weights import checkpoints

_ROOT = Path(__file__).parent
_TINY = ','.join(
  [
    *tiny_runs.overrides(tiny_runs.EFFICIENTNET),
    *('train.log_steps=2', 'train.checkpoint_steps=2'),
  ]
)


def _command(model_dir, *arguments, epochs=0.4):
  return [
    sys.executable,
    str(_ROOT / 'main.py'),
    '--mode=train',
    f'--config_file={_ROOT / "hparams" / "demo.yaml"}',
    f'--params_override={_TINY},train.epochs={epochs}',
    f'--model_dir={model_dir}',
    *arguments,
  ]


def _last_line(process, stderr):
  """The only line with which main.py ends."""
  assert process.returncode == 2, stderr
  lines = [ln for ln in stderr.splitlines() if ln.startswith('main.py: ')]
  assert len(lines) == 1 and 'Traceback' not in stderr, stderr
  return lines[0]


def _may_mount():
  """Whether a process may have a file system of its own."""
  command = ['unshare', '--map-root-user', '--mount', 'true']
  try:
    return not subprocess.run(command, capture_output=True).returncode
  except OSError:
    return False


@pytest.mark.slow
@pytest.mark.skipif(not _may_mount(), reason='no file system of its own')
def test_a_full_disk_ends_in_one_line(tmp_path):
  """A disk of 4 MB takes one checkpoint of 2.3 MB, and not the next."""
  saved = tmp_path / 'saved'
  script = (
    f'mount -t tmpfs -o size=4m tmpfs {tmp_path}/disk && "$@"; code=$?;'
    f' cp -r {tmp_path}/disk {saved}; exit $code'
  )
  (tmp_path / 'disk').mkdir()
  command = _command(tmp_path / 'disk' / 'run')
  apart = ['unshare', '--map-root-user', '--mount', 'sh', '-c', script, 'sh']
  done = subprocess.run(
    [*apart, *command], capture_output=True, text=True, check=False
  )
  line = _last_line(done, done.stderr)
  assert 'cannot write the checkpoint of step 4' in line
  assert 'No space left on device' in line
  # The first one is whole: with more space the run resumes there.
  model_dir = saved / 'run'
  paths = checkpoints.checkpoint_paths(str(model_dir / 'checkpoints'))
  assert [os.path.basename(path) for path in paths] == ['ckpt-2']
  done = subprocess.run(
    _command(model_dir), capture_output=True, text=True, check=False
  )
  assert done.returncode == 0 and f'Resuming from {paths[0]}' in done.stderr


@pytest.mark.slow
def test_a_killed_worker_ends_the_other_in_one_line(tmp_path):
  with socket.socket() as one, socket.socket() as two:
    for each in (one, two):
      each.bind(('localhost', 0))
    workers = [f'localhost:{each.getsockname()[1]}' for each in (one, two)]
  command = _command(tmp_path, '--strategy=multi_worker', epochs=50)
  processes = []
  for index in (0, 1):
    task = {'type': 'worker', 'index': index}
    cluster = {'cluster': {'worker': workers}, 'task': task}
    with open(tmp_path / f'{index}.txt', 'w') as log:
      processes.append(
        subprocess.Popen(
          command,
          stderr=log,
          env={**os.environ, 'TF_CONFIG': json.dumps(cluster)},
        )
      )
  survivor, victim = processes
  metrics = tmp_path / 'metrics.jsonl'
  while not metrics.exists() or metrics.read_text().count('\n') < 3:
    assert survivor.poll() is None and victim.poll() is None
    time.sleep(0.1)
  victim.kill()
  victim.wait()
  survivor.wait()
  line = _last_line(survivor, (tmp_path / '0.txt').read_text())
  assert f'worker 1 ({workers[1]}) has ended' in line
  assert checkpoints.checkpoint_paths(str(tmp_path / 'checkpoints'))


@pytest.mark.slow
def test_a_bad_label_ends_in_one_line(tmp_path):
  data = tmp_path / 'data'
  shutil.copytree(_ROOT / 'testdata', data)
  shard = sorted(data.glob('train-*'))[0]
  serialized = list(tf.data.TFRecordDataset(str(shard)).as_numpy_iterator())
  example = tf.train.Example.FromString(serialized[3])
  encoded = example.features.feature['image/encoded'].bytes_list.value[0]
  serialized[3] = tiny_data.example(encoded, 11)
  tiny_data.write_shard(shard, serialized)
  command = _command(tmp_path / 'run', f'--data_dir={data}')
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  line = _last_line(done, done.stderr)
  assert f'{shard}: record 3: the label 11 is not in 1..10' in line


def _tests_of(path):
  """The names of the tests in a file."""
  tree = ast.parse((_ROOT / path).read_text())
  functions = [n.name for n in tree.body if isinstance(n, ast.FunctionDef)]
  return {name for name in functions if name.startswith('test_')}


def test_every_fault_of_the_table_is_injected_by_a_test():
  text = (_ROOT / 'docs' / 'reliability.md').read_text()
  rows = re.findall(r'^\| (.+) \| (.+) \| (.+) \|$', text, re.MULTILINE)
  faults = [row for row in rows if '_test.py' in row[2]]
  assert len(faults) > 30
  for fault, _, tests in faults:
    names = re.findall(r'`([\w/]+_test\.py)::(test_\w+)`', tests)
    assert names and len(names) == tests.count('::'), fault
    for path, name in names:
      assert name in _tests_of(path), f'{fault}: {path} has no {name}'


@pytest.mark.slow
def test_the_tasks_of_a_slurm_job_step_train_together(tmp_path):
  """Both on one node, as the processes that srun starts."""
  command = _command(tmp_path / 'run', '--strategy=multi_worker')
  processes = []
  for rank in ('0', '1'):
    variables = {
      'SLURM_JOB_ID': str(os.getpid()),  # Chooses the ports.
      'SLURM_STEP_NODELIST': 'localhost',
      'SLURM_STEP_NUM_TASKS': '2',
      'SLURM_STEP_TASKS_PER_NODE': '2',
      'SLURM_PROCID': rank,
      'SLURM_LOCALID': rank,
      'SLURMD_NODENAME': 'localhost',
    }
    processes.append(
      subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
      )
    )
  logs = [process.communicate()[1] for process in processes]
  for process, log in zip(processes, logs):
    assert process.returncode == 0, log
    assert 'on 2 replica(s)' in log
  assert checkpoints.checkpoint_paths(str(tmp_path / 'run' / 'checkpoints'))
