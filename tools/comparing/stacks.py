"""Carries a run and its export from one TensorFlow to another."""

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import devices
from efficientnet_advprop import export
from efficientnet_advprop.app import modes
from efficientnet_advprop.base import paths
from efficientnet_advprop.testing import tiny_runs
from efficientnet_advprop.weights import checkpoints
from efficientnet_advprop.weights import loading

import tensorflow as tf  # isort: skip

_TOLERANCE = 1e-5
_STEPS = 4  # Steps of the writer; the reader trains to twice as many.


def _config(steps: int) -> config_lib.Config:
  return tiny_runs.config(steps, log_steps=2)


def _network_logits(model_dir: str) -> dict[str, np.ndarray]:
  """Returns logits of a run's weights, through the norms of every domain."""
  config = _config(_STEPS)
  values = {}
  for weights in ('ema', 'raw'):
    model, _ = loading.restored(config, model_dir, weights)
    for domain in ('main', *config.auxiliary_domains):
      logits = model(_images(), domain=domain).numpy()
      values[f'{weights}_{domain}'] = logits
  return values


def _images() -> tf.Tensor:
  return tf.random.stateless_uniform([8, 16, 16, 3], [0, 1], -1, 1)


def _served_logits(version: str) -> np.ndarray:
  signature = tf.saved_model.load(version).signatures['serving_default']
  return signature(images=_images())['logits'].numpy()


def write(folder: str) -> None:
  """Trains a run in a folder, exports it and saves the logits."""
  model_dir = os.path.join(folder, 'run')
  strategy = devices.create_strategy('one_device')
  modes.train(_config(_STEPS), strategy, model_dir)
  base = os.path.join(folder, 'export')
  exported = export.export(_config(_STEPS), model_dir, base)
  os.rename(exported.version, os.path.join(base, 'version'))
  values: dict[str, Any] = _network_logits(model_dir)
  values['saved_model'] = _served_logits(os.path.join(base, 'version'))
  np.savez(os.path.join(folder, 'logits.npz'), **values)


def read(folder: str) -> dict[str, Any]:
  """Compares what another Python wrote, and resumes its run.

  Args:
    folder: what `write` filled.

  Returns:
    The largest difference of a logit over the largest logit, by kind of file,
    and the step `trained_to`.
  """
  model_dir = os.path.join(folder, 'run')
  ours = _network_logits(model_dir)
  ours['saved_model'] = _served_logits(
    os.path.join(folder, 'export', 'version')
  )
  differences = {}
  with np.load(os.path.join(folder, 'logits.npz')) as theirs:
    for name, value in ours.items():
      scale = np.abs(theirs[name]).max()
      differences[name] = float(np.abs(value - theirs[name]).max() / scale)
  strategy = devices.create_strategy('one_device')
  modes.train(_config(2 * _STEPS), strategy, model_dir)
  newest = checkpoints.checkpoint_paths(
    os.path.join(model_dir, paths.CHECKPOINTS)
  )
  step = int(newest[0].rsplit('-', 1)[1])
  return {**differences, 'trained_to': step}


def compare(door: str, other: str) -> dict[str, Any]:
  """Exchanges files between this Python and another.

  Args:
    door: the file compare_stacks.py, which runs the parts of each Python.
    other: the other Python.

  Returns:
    The number of steps, and what each one found in the files of the other.
  """
  result: dict[str, Any] = {'steps': _STEPS}
  with tempfile.TemporaryDirectory() as folder:
    for writer, reader in ((sys.executable, other), (other, sys.executable)):
      place = os.path.join(folder, str(len(result)))
      os.mkdir(place)
      wrote = _call(writer, door, 'write_dir', place)['tensorflow']
      found = _call(reader, door, 'read_dir', place)
      result[f'{wrote} read by {found.pop("tensorflow")}'] = found
  return result


def _call(python: str, door: str, flag: str, folder: str) -> dict[str, Any]:
  """Runs a part of the comparison in a Python; returns its last line."""
  environment = dict(os.environ)
  # Each Python sets it for itself.
  environment.pop('TF_USE_LEGACY_KERAS', None)
  done = subprocess.run(
    [python, door, f'--{flag}={folder}'],
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  if done.returncode:
    raise RuntimeError(f'{python} --{flag}:\n{done.stderr[-2000:]}')
  return json.loads(done.stdout.splitlines()[-1])


def agrees(result: dict[str, Any]) -> bool:
  """Returns whether both directions agree, and both runs came to their end."""
  directions = [value for value in result.values() if isinstance(value, dict)]
  differences = [
    difference
    for direction in directions
    for name, difference in direction.items()
    if name != 'trained_to'
  ]
  ends = {direction['trained_to'] for direction in directions}
  return max(differences) <= _TOLERANCE and ends == {2 * _STEPS}
