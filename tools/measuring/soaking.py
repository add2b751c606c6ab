"""Kills training runs at random moments, and compares what they end with."""

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
import time
from typing import Any, NamedTuple

import numpy as np

from efficientnet_advprop import devices
from efficientnet_advprop.app import modes
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import paths
from efficientnet_advprop.testing import tiny_runs
from efficientnet_advprop.training import stopping
from efficientnet_advprop.weights import checkpoints

import tensorflow as tf  # isort: skip

_KINDS = ('start', 'train', 'save', 'term')
# What a checkpoint holds besides the state: its outline, and the number of
# saves, which a SIGTERM raises by one.
_NO_STATE = '_CHECKPOINTABLE_OBJECT_GRAPH', 'save_counter'
# A process needs far less.
_LIMIT_SECONDS = 1800


class Layout(NamedTuple):
  """How a run is laid out, and how long it is."""

  replicas: int = 1  # Replicas in a process.
  processes: int = 1
  steps: int = 40


def work(layout: Layout, model_dir: str) -> int:
  """Trains, as one of the processes that are killed; returns its exit code."""
  tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices('CPU')[0],
    [tf.config.LogicalDeviceConfiguration()] * layout.replicas,
  )
  tf.config.experimental.enable_op_determinism()
  if layout.processes > 1:
    name = 'multi_worker'
  else:
    name = 'mirrored' if layout.replicas > 1 else 'one_device'
  strategy = devices.create_strategy(name)
  config = tiny_runs.config(layout.steps, log_steps=1, checkpoint_steps=2)
  try:
    modes.train(config, strategy, model_dir)
  except stopping.StoppedError:
    return errors.EXIT_TERMINATED
  return 0


class Soak:
  """Kills runs of one layout."""

  def __init__(
    self, command: list[str], layout: Layout, folder: Path, seed: int
  ):
    """Prepares a soak test.

    Args:
      command: starts soak.py, whose --worker_dir makes it a worker.
      layout: of the runs that are killed.
      folder: for the runs.
      seed: decides on the moments of the kills.
    """
    self._command, self._layout = command, layout
    self._folder, self._rng = folder, random.Random(seed)

  def run(self, kills: int, kills_per_run: int) -> dict[str, Any]:
    """Makes all runs; returns the figures.

    Raises:
      RuntimeError: a run failed although it was not killed.
    """
    layout, began = self._layout, time.monotonic()
    whole = self._new_run('whole')
    self._finish(whole, layout)
    expected = fingerprint(whole)
    steps = [line['step'] for line in expected[1]]
    if steps != list(range(1, layout.steps + 1)):
      raise RuntimeError(f'metrics.jsonl holds steps {steps}')
    distances: dict[str, float] = {}
    if layout.replicas * layout.processes > 1:
      one = self._new_run('one_device')
      self._finish(one, Layout(steps=layout.steps))
      distances = differences(whole, one)
    counts = dict.fromkeys(_KINDS, 0)
    tried = equal = 0
    while tried < kills:
      model_dir = self._new_run(f'after_{tried}')
      done = self._kill_often(
        model_dir, min(kills_per_run, kills - tried), counts
      )
      self._finish(model_dir, layout)
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
      **distances,
      **layout._asdict(),
      'seconds': round(time.monotonic() - began),
    }

  def _new_run(self, name: str) -> Path:
    model_dir = self._folder / name / 'run'
    model_dir.mkdir(parents=True)
    return model_dir

  def _kill_often(
    self, model_dir: Path, most: int, counts: dict[str, int]
  ) -> int:
    """Kills a run until it ends by itself; returns the number of kills."""
    for done in range(most):
      kind = self._rng.choice(_KINDS)
      if not self._kill(kind, model_dir):
        return done
      counts[kind] += 1
    return most

  def _kill(self, kind: str, model_dir: Path) -> bool:
    """Starts a run and ends it midway; returns False if it came to its end."""
    workers = self._start(model_dir, self._layout)
    self._await_moment(kind, model_dir, workers)
    victim = self._rng.choice(workers)
    if victim.poll() is not None:
      _end(workers)
      return False
    victim.send_signal(signal.SIGTERM if kind == 'term' else signal.SIGKILL)
    if kind == 'term':
      codes = {worker.wait(_LIMIT_SECONDS) for worker in workers}
      # A signal after the last interval finds nothing to stop.
      if not codes <= {0, errors.EXIT_TERMINATED}:
        raise RuntimeError(f'SIGTERM: exit codes {codes}')
    _end(workers)
    return True

  def _await_moment(
    self, kind: str, model_dir: Path, workers: Sequence[subprocess.Popen]
  ) -> None:
    """Waits for the moment of a kill, or for the end of the run."""
    if kind == 'start':
      time.sleep(self._rng.uniform(1, 15))
      return
    steps = self._layout.steps
    known = len(_lines(model_dir))
    target = known + self._rng.randint(1, max(1, (steps - known) // 2))
    while all(worker.poll() is None for worker in workers):
      if len(_lines(model_dir)) >= min(target, steps):
        break
      time.sleep(0.01)
    while kind == 'save' and all(worker.poll() is None for worker in workers):
      if _is_saving(model_dir):
        return
    time.sleep(self._rng.uniform(0, 0.1))

  def _start(
    self, model_dir: Path, layout: Layout
  ) -> list['subprocess.Popen[bytes]']:
    """Starts all workers of a run."""
    command = [*self._command, f'--worker_dir={model_dir}']
    command += [f'--{key}={value}' for key, value in layout._asdict().items()]
    addresses = [f'localhost:{port}' for port in _free_ports(layout.processes)]
    workers = []
    for index in range(layout.processes):
      environment = dict(os.environ)
      if layout.processes > 1:
        task = {'type': 'worker', 'index': index}
        cluster = {'cluster': {'worker': addresses}, 'task': task}
        environment['TF_CONFIG'] = json.dumps(cluster)
      with open(model_dir.parent / f'log_{index}.txt', 'ab') as log:
        workers.append(
          subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        )
    return workers

  def _finish(self, model_dir: Path, layout: Layout) -> None:
    workers = self._start(model_dir, layout)
    # If one fails, the others would wait for it.
    while None in (codes := [worker.poll() for worker in workers]):
      if any(codes):
        break
      time.sleep(0.1)
    _end(workers)
    if any(codes):
      log = (model_dir.parent / 'log_0.txt').read_text(errors='replace')
      raise RuntimeError(f'exit codes {codes}; its log ends:\n{log[-2000:]}')


def _free_ports(number: int) -> list[int]:
  sockets = [socket.socket() for _ in range(number)]
  for each in sockets:
    each.bind(('localhost', 0))
  ports = [each.getsockname()[1] for each in sockets]
  for each in sockets:
    each.close()
  return ports


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
      break  # A kill left half a line.
  return values


def _end(workers: Sequence[subprocess.Popen]) -> None:
  for worker in workers:
    worker.kill()
    worker.wait(_LIMIT_SECONDS)


def _state(model_dir: Path) -> dict[str, np.ndarray]:
  """Reads all tensors in the newest checkpoint of a run."""
  newest = checkpoints.checkpoint_paths(str(model_dir / paths.CHECKPOINTS))[0]
  reader = tf.train.load_checkpoint(newest)
  return {
    name: reader.get_tensor(name)
    for name in sorted(reader.get_variable_to_shape_map())
    if not name.startswith(_NO_STATE)
  }


def fingerprint(model_dir: Path) -> tuple[str, list[dict[str, Any]]]:
  """Reads what a run ended with.

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
  """Compares two runs of the same steps.

  Returns:
    `loss_difference`, the largest of a loss, relative; and `state_difference`,
    the largest of a variable, relative to its largest value or 0.1.
  """
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
