"""Carries a run and its export from one TensorFlow to another, both ways.

  .venv/bin/python tools/compare_stacks.py --other=.venv-newer/bin/python

Each of the two Pythons, the one that runs this and the other, trains a small
network on the embedded data set, exports it and notes its logits. Then each
reads what the other wrote: the weights through either norms, the SavedModel,
and the run itself, which it trains to the end.

Ends in one line of JSON: the TensorFlow versions and, for each direction, the
largest difference of a logit over the largest logit, and the step to which the
other's run was trained. The exit code is 1 if a difference is above 1e-5.
"""

from collections.abc import Sequence
import json
import os
import subprocess
import sys
import tempfile
from typing import Any, Optional

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import app
from absl import flags
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import devices
from efficientnet_advprop import export
from efficientnet_advprop.app import modes
from efficientnet_advprop.app import program
from efficientnet_advprop.base import paths
from efficientnet_advprop.weights import checkpoints
from efficientnet_advprop.weights import loading

import tensorflow as tf  # isort: skip

FLAGS = program.flag_values(__name__)
flags.DEFINE_string(
  'other', None, 'The other Python, with its packages.', flag_values=FLAGS
)
flags.DEFINE_string(
  'write_dir', None, 'Used between the processes.', flag_values=FLAGS
)
flags.DEFINE_string(
  'read_dir', None, 'Used between the processes.', flag_values=FLAGS
)

_TOLERANCE = 1e-5
_STEPS = 4  # Of the writer; the reader trains twice as many.


def _config(steps: int) -> config_lib.Config:
  """Seven blocks on 16-pixel images."""
  return config_lib.from_dict(
    {
      'model': {
        'image_size': 16,
        'width_coefficient': 0.25,
        'depth_coefficient': 0.1,
      },
      'data': {
        'num_classes': 10,
        'num_train_images': 2500,
        'num_eval_images': 500,
        'augmentation': 'none',
      },
      'train': {
        'batch_size': 16,
        'epochs': steps * 16 / 2500,
        'log_steps': 2,
        'warmup_epochs': 0,
      },
    }
  )


def _network_logits(model_dir: str) -> dict[str, np.ndarray]:
  """Logits of a run's weights, through the norms of every domain."""
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
  """Trains, exports and notes the logits."""
  model_dir = os.path.join(folder, 'run')
  strategy = devices.create_strategy('one_device')
  modes.train(_config(_STEPS), strategy, model_dir)
  base = os.path.join(folder, 'export')
  exported = export.export(_config(_STEPS), model_dir, base)
  os.rename(exported.version, os.path.join(base, 'version'))
  values = _network_logits(model_dir)
  values['saved_model'] = _served_logits(os.path.join(base, 'version'))
  np.savez(os.path.join(folder, 'logits.npz'), **values)


def read(folder: str) -> dict[str, Any]:
  """Compares what another stack wrote, and goes on with its run."""
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


def _call(python: str, flag: str, folder: str) -> dict[str, Any]:
  """Runs a part of this under a Python; returns its last line."""
  environment = dict(os.environ)
  # Each stack decides on it for itself.
  environment.pop('TF_USE_LEGACY_KERAS', None)
  done = subprocess.run(
    [python, __file__, f'--{flag}={folder}'],
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  if done.returncode:
    raise RuntimeError(f'{python} --{flag}:\n{done.stderr[-2000:]}')
  return json.loads(done.stdout.splitlines()[-1])


def compare(other: str) -> dict[str, Any]:
  """Exchanges files between this Python and the other."""
  result: dict[str, Any] = {'steps': _STEPS}
  with tempfile.TemporaryDirectory() as folder:
    for writer, reader in ((sys.executable, other), (other, sys.executable)):
      place = os.path.join(folder, str(len(result)))
      os.mkdir(place)
      wrote = _call(writer, 'write_dir', place)['tensorflow']
      found = _call(reader, 'read_dir', place)
      result[f'{wrote} read by {found.pop("tensorflow")}'] = found
  return result


def _check(values: flags.FlagValues) -> None:
  if not (values.other or values.write_dir or values.read_dir):
    raise flags.Error(
      '--other: a Python with the packages of the other stack is needed'
    )


def main(_: Sequence[str]) -> Optional[int]:
  """Compares two stacks, or does one stack's part."""
  version = {'tensorflow': tf.__version__}
  if FLAGS.write_dir:
    write(FLAGS.write_dir)
    print(json.dumps(version))
    return 0
  if FLAGS.read_dir:
    print(json.dumps({**version, **read(FLAGS.read_dir)}))
    return 0
  result = compare(FLAGS.other)
  print(json.dumps(result))
  return 0 if agrees(result) else 1


def agrees(result: dict[str, Any]) -> bool:
  """Whether both directions agree, and both runs went on to their end."""
  directions = [value for value in result.values() if isinstance(value, dict)]
  differences = [
    difference
    for direction in directions
    for name, difference in direction.items()
    if name != 'trained_to'
  ]
  ends = {direction['trained_to'] for direction in directions}
  return max(differences) <= _TOLERANCE and ends == {2 * _STEPS}


if __name__ == '__main__':
  app.run(main, flags_parser=program.parser('compare_stacks', FLAGS, _check))
