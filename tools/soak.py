"""Kills training runs at random moments and compares what they end with.

  .venv/bin/python tools/soak.py --kills=20

Runs a small network on the embedded data set, once without interruption, then
again and again with kills: by SIGKILL while it starts, trains or saves, and by
SIGTERM. A killed run is started anew with the same command. What it ends with
must have the bits of the uninterrupted run: the weights, every domain's
statistics, the optimizer and the average in the last checkpoint, and
metrics.jsonl, whose speeds are left out.

With --processes=2 one of the workers is killed; the others are ended, as a
cluster's manager would, and all are started anew.

With several replicas or processes the uninterrupted run is also compared with
that of one device. The global batches are the same, the order of sums is not,
and what differs grows with the steps: look at it with few, and no kills:

  .venv/bin/python tools/soak.py --kills=0 --steps=6 --replicas=2

Ends in one line of JSON: `tried` kills, and how many of them lie in runs that
ended `equal`; `loss_difference` and `state_difference` from one device, the
largest of a loss, relative, and of a variable, relative to its largest value or
0.1. The exit code is 1 if `tried` and `equal` differ.
"""

from collections.abc import Sequence
import hashlib
import json
import os
from pathlib import Path
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any, Optional

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import app
from absl import flags
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import devices
from efficientnet_advprop.app import modes
from efficientnet_advprop.app import program
from efficientnet_advprop.base import paths
from efficientnet_advprop.training import stopping
from efficientnet_advprop.weights import checkpoints

import tensorflow as tf  # isort: skip

FLAGS = program.flag_values(__name__)
for _name, _default, _least, _help in (
  ('kills', 20, 0, 'How many kills in all.'),
  ('kills_per_run', 5, 1, 'Kills of one run.'),
  ('replicas', 1, 1, 'Replicas in a process.'),
  ('processes', 1, 1, 'Workers.'),
  ('steps', 40, 4, 'Steps of a run.'),
  ('seed', 0, None, 'Of the moments.'),
):
  flags.DEFINE_integer(_name, _default, _help, _least, flag_values=FLAGS)
flags.DEFINE_string(
  'worker_dir', None, 'Used between the processes.', flag_values=FLAGS
)

_BATCH, _IMAGES = 16, 2500  # Images: of the embedded data set.
_KINDS = ('start', 'train', 'save', 'term')
_TERMINATED = 143
# In a checkpoint beside the state: its outline, and the number of saves, of
# which SIGTERM makes one more.
_NO_STATE = '_CHECKPOINTABLE_OBJECT_GRAPH', 'save_counter'
# Of one process, far beyond what it needs.
_LIMIT_SECONDS = 1800


def _config(steps: int) -> config_lib.Config:
  """Seven blocks on 16-pixel images, saved every other step."""
  return config_lib.from_dict(
    {
      'model': {
        'image_size': 16,
        'width_coefficient': 0.25,
        'depth_coefficient': 0.1,
      },
      'data': {
        'num_classes': 10,
        'num_train_images': _IMAGES,
        'num_eval_images': 500,
        'augmentation': 'none',
      },
      'train': {
        'batch_size': _BATCH,
        'epochs': steps * _BATCH / _IMAGES,
        'log_steps': 1,
        'checkpoint_steps': 2,
        'warmup_epochs': 0,
      },
    }
  )


def _work(model_dir: str) -> int:
  """Trains, as one of the processes that are killed."""
  tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices('CPU')[0],
    [tf.config.LogicalDeviceConfiguration()] * FLAGS.replicas,
  )
  tf.config.experimental.enable_op_determinism()
  if FLAGS.processes > 1:
    name = 'multi_worker'
  else:
    name = 'mirrored' if FLAGS.replicas > 1 else 'one_device'
  strategy = devices.create_strategy(name)
  try:
    modes.train(_config(FLAGS.steps), strategy, model_dir)
  except stopping.StoppedError:
    return _TERMINATED
  return 0


def _free_ports(number: int) -> list[int]:
  sockets = [socket.socket() for _ in range(number)]
  for each in sockets:
    each.bind(('localhost', 0))
  ports = [each.getsockname()[1] for each in sockets]
  for each in sockets:
    each.close()
  return ports


def _start(model_dir: Path, alone: bool = False) -> list[subprocess.Popen]:
  """Starts all workers of a run, or one device alone."""
  replicas, processes = FLAGS.replicas, FLAGS.processes
  if alone:
    replicas = processes = 1
  command = [
    sys.executable,
    __file__,
    f'--worker_dir={model_dir}',
    f'--replicas={replicas}',
    f'--processes={processes}',
    f'--steps={FLAGS.steps}',
  ]
  addresses = [f'localhost:{port}' for port in _free_ports(processes)]
  workers = []
  for index in range(processes):
    environment = dict(os.environ)
    if processes > 1:
      task = {'type': 'worker', 'index': index}
      cluster = {'cluster': {'worker': addresses}, 'task': task}
      environment['TF_CONFIG'] = json.dumps(cluster)
    with open(model_dir.parent / f'log_{index}.txt', 'ab') as log:
      workers.append(
        subprocess.Popen(command, env=environment, stdout=log, stderr=log)
      )
  return workers


def _is_saving(model_dir: Path) -> bool:
  folder = model_dir / paths.CHECKPOINTS
  written = {path.name for path in folder.glob('ckpt-*')}
  whole = {name[:-6] for name in written if name.endswith('.index')}
  return any(name.split('.')[0] not in whole for name in written)


def _lines(model_dir: Path) -> list[dict[str, Any]]:
  path = model_dir / paths.METRICS
  lines = path.read_text().splitlines() if path.exists() else []
  values = []
  for line in lines:
    try:
      values.append(json.loads(line))
    except ValueError:
      break  # Half a line, as a kill leaves it.
  return values


def _await_moment(
  kind: str,
  model_dir: Path,
  workers: Sequence[subprocess.Popen],
  rng: random.Random,
) -> None:
  """Waits for the moment of a kill, or for the end of the run."""
  if kind == 'start':
    time.sleep(rng.uniform(1, 15))
    return
  known = len(_lines(model_dir))
  target = known + rng.randint(1, max(1, (FLAGS.steps - known) // 2))
  while all(worker.poll() is None for worker in workers):
    if len(_lines(model_dir)) >= min(target, FLAGS.steps):
      break
    time.sleep(0.01)
  while kind == 'save' and all(worker.poll() is None for worker in workers):
    if _is_saving(model_dir):
      return
  time.sleep(rng.uniform(0, 0.1))


def _kill(
  kind: str,
  model_dir: Path,
  workers: Sequence[subprocess.Popen],
  rng: random.Random,
) -> bool:
  """Ends a run in the midst of it; False if it came to its end before."""
  _await_moment(kind, model_dir, workers, rng)
  victim = rng.choice(workers)
  if victim.poll() is not None:
    _end(workers)
    return False
  victim.send_signal(signal.SIGTERM if kind == 'term' else signal.SIGKILL)
  if kind == 'term':
    codes = {worker.wait(_LIMIT_SECONDS) for worker in workers}
    # A signal behind the last interval finds nothing left to stop.
    if not codes <= {0, _TERMINATED}:
      raise RuntimeError(f'SIGTERM: exit codes {codes}')
  _end(workers)
  return True


def _end(workers: Sequence[subprocess.Popen]) -> None:
  for worker in workers:
    worker.kill()
    worker.wait(_LIMIT_SECONDS)


def _finish(model_dir: Path, alone: bool = False) -> None:
  workers = _start(model_dir, alone)
  # One that fails leaves the others waiting.
  while None in (codes := [worker.poll() for worker in workers]):
    if any(codes):
      break
    time.sleep(0.1)
  _end(workers)
  if any(codes):
    log = (model_dir.parent / 'log_0.txt').read_text(errors='replace')
    raise RuntimeError(f'exit codes {codes}; its log ends:\n{log[-2000:]}')


def _state(model_dir: Path) -> dict[str, np.ndarray]:
  """All tensors in the newest checkpoint of a run."""
  newest = checkpoints.checkpoint_paths(str(model_dir / paths.CHECKPOINTS))[0]
  reader = tf.train.load_checkpoint(newest)
  return {
    name: reader.get_tensor(name)
    for name in sorted(reader.get_variable_to_shape_map())
    if not name.startswith(_NO_STATE)
  }


def fingerprint(model_dir: Path) -> tuple[str, list[dict[str, Any]]]:
  """What a run has ended with.

  Returns:
    A hash of all tensors in the newest checkpoint, and the lines of
    metrics.jsonl without their speeds.
  """
  digest = hashlib.sha256()
  for name, value in _state(model_dir).items():
    digest.update(name.encode())
    digest.update(value.tobytes())
  lines = _lines(model_dir)
  for line in lines:
    del line['images_per_second'], line['input_wait']
  return digest.hexdigest(), lines


def differences(model_dir: Path, other_dir: Path) -> dict[str, float]:
  """How far two runs of the same steps lie apart; see the head of this file."""
  losses = states = 0.0
  for ours, theirs in zip(_lines(model_dir), _lines(other_dir)):
    for name in (name for name in ours if name.endswith('loss')):
      gap = abs(ours[name] - theirs[name]) / abs(theirs[name])
      losses = max(losses, gap)
  state = _state(model_dir)
  for name, value in _state(other_dir).items():
    scale = max(0.1, np.abs(value).max())
    states = max(states, float(np.abs(state[name] - value).max() / scale))
  return {'loss_difference': losses, 'state_difference': states}


def _soak(folder: Path) -> dict[str, Any]:
  rng = random.Random(FLAGS.seed)
  whole = folder / 'whole' / 'run'
  whole.mkdir(parents=True)
  began = time.monotonic()
  _finish(whole)
  expected = fingerprint(whole)
  steps = [line['step'] for line in expected[1]]
  if steps != list(range(1, FLAGS.steps + 1)):
    raise RuntimeError(f'metrics.jsonl holds steps {steps}')
  apart: dict[str, float] = {}
  if FLAGS.replicas * FLAGS.processes > 1:
    one = folder / 'one_device' / 'run'
    one.mkdir(parents=True)
    _finish(one, alone=True)
    apart = differences(whole, one)
  counts = dict.fromkeys(_KINDS, 0)
  tried = equal = 0
  while tried < FLAGS.kills:
    model_dir = folder / f'after_{tried}' / 'run'
    model_dir.mkdir(parents=True)
    done = 0
    while done < min(FLAGS.kills_per_run, FLAGS.kills - tried):
      kind = rng.choice(_KINDS)
      if not _kill(kind, model_dir, _start(model_dir), rng):
        break
      counts[kind] += 1
      done += 1
    _finish(model_dir)
    same = fingerprint(model_dir) == expected
    tried += done
    equal += done * same
    print(f'{tried} kills: {"equal" if same else "DIFFERENT"}', flush=True)
    if same:
      shutil.rmtree(model_dir.parent)
  return {
    'tried': tried,
    'equal': equal,
    **counts,
    **apart,
    'replicas': FLAGS.replicas,
    'processes': FLAGS.processes,
    'steps': FLAGS.steps,
    'seed': FLAGS.seed,
    'seconds': round(time.monotonic() - began),
  }


def main(_: Sequence[str]) -> Optional[int]:
  """Runs the soak test, or one of its workers."""
  if FLAGS.worker_dir:
    return _work(FLAGS.worker_dir)
  folder = Path(tempfile.mkdtemp(prefix='soak_'))
  result = _soak(folder)
  print(json.dumps(result))
  if result['tried'] != result['equal']:
    print(f'the runs that differ lie in {folder}', file=sys.stderr)
    return 1
  shutil.rmtree(folder)
  return 0


if __name__ == '__main__':
  app.run(main, flags_parser=program.parser('soak', FLAGS))
