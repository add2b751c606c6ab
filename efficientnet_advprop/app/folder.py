"""Whose run is in a model_dir, and whether it can be written."""

from collections.abc import Iterator, Mapping
import contextlib
import os
from typing import Any

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import devices
from efficientnet_advprop.base import locks
from efficientnet_advprop.base import paths
from efficientnet_advprop.weights import checkpoints

# What a run in a model_dir cannot change without becoming another run.
_IDENTITY = ('data.num_classes', 'train.method')


def check_identity(config: config_lib.Config, model_dir: str) -> None:
  """Raises ConfigError if `model_dir` holds the run of another network.

  A run that stopped before its first checkpoint, over wrong data for example,
  leaves nothing that another network could harm.
  """
  path = os.path.join(model_dir, paths.CONFIG)
  folder = os.path.join(model_dir, paths.CHECKPOINTS)
  if not (tf.io.gfile.exists(path) and checkpoints.checkpoint_paths(folder)):
    return
  saved = config_lib.to_dict(config_lib.load_config(path))
  for key, value in _flatten(config_lib.to_dict(config)).items():
    old = _flatten(saved).get(key)
    if value == old:
      continue
    if key in _IDENTITY or key.startswith('model.'):
      allowed = f'{old}, as in {path}, or another --model_dir'
      raise config_lib.ConfigError(key, value, allowed)
    logging.info('%s is now %s; it was %s in %s', key, value, old, path)


def _flatten(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  flat: dict[str, Any] = {}
  for key, value in values.items():
    if isinstance(value, Mapping):
      flat.update(_flatten(value, f'{prefix}{key}.'))
    else:
      flat[f'{prefix}{key}'] = value
  return flat


@contextlib.contextmanager
def owned(strategy: tf.distribute.Strategy, model_dir: str) -> Iterator[None]:
  """Makes the model_dir, and keeps other processes from training in it.

  Args:
    strategy: whose chief writes there; other workers of a run only read.
    model_dir: local or remote.

  Raises:
    ConfigError: the folder cannot be written.
    LockedError: another process trains there.
  """
  if not devices.is_chief(strategy):
    yield
    return
  make_writable(model_dir)
  with locks.locked(model_dir, 'give another --model_dir'):
    yield


def make_writable(model_dir: str) -> None:
  """Creates the model_dir, unless it is there, and tries to write into it.

  Otherwise a long start-up would come before the error.
  """
  probe = os.path.join(model_dir, 'probe.tmp')
  try:
    tf.io.gfile.makedirs(model_dir)
    with tf.io.gfile.GFile(probe, 'w') as file:
      file.write('A run was here.')
    tf.io.gfile.remove(probe)
  except tf.errors.OpError as error:
    allowed = f'a folder that can be written ({error.message})'
    raise config_lib.ConfigError('model_dir', model_dir, allowed) from error
