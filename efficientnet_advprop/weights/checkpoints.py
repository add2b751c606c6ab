"""The checkpoints of a run: written whole, the newest readable one is read.

A checkpoint holds `model` (the weights being trained), `ema` (their moving
average, of every domain's statistics too) and `optimizer` with the step.
"""

import hashlib
import os
import re
import tempfile
from typing import Any, Callable, Optional

from absl import logging
import numpy as np
import tensorflow as tf

from efficientnet_advprop.base import errors
from efficientnet_advprop.base import paths
from efficientnet_advprop.config import recipes

# Names in a checkpoint's file: the parts with weights, the end of a variable's
# name, and the step.
_PARTS = {'ema': 'ema', 'raw': 'model'}
_SUFFIX = '/.ATTRIBUTES/VARIABLE_VALUE'
_STEP = f'optimizer/_iterations{_SUFFIX}'
# What TensorFlow raises when a checkpoint's files are damaged.
_DAMAGE = (
  tf.errors.OpError,
  IndexError,
  ValueError,
  RuntimeError,
  AssertionError,
)


def checkpoint_paths(directory: str) -> list[str]:
  """The checkpoints in a directory by the steps in their names, newest first.

  The directory is listed; TensorFlow's state file is not trusted, which may be
  empty or stale after a crash.
  """
  found = []
  names = tf.io.gfile.listdir(directory) if _is_folder(directory) else ()
  for name in names:
    match = re.fullmatch(r'(ckpt-(\d+))\.index', name)
    if match:
      path = os.path.join(directory, match.group(1))
      found.append((int(match.group(2)), path))
  return [path for _, path in sorted(found, reverse=True)]


def _is_folder(directory: str) -> bool:
  return tf.io.gfile.isdir(directory)


class CheckpointManager:
  """Saves a `tf.train.Checkpoint` under its step; restores the newest one."""

  def __init__(
    self,
    checkpoint: tf.train.Checkpoint,
    directory: str,
    keep: int,
    writes: bool = True,
    reader: Optional[Callable[[str], tf.train.Checkpoint]] = None,
  ):
    """Creates the manager, and the directory if it is not there.

    Args:
      checkpoint: what to save.
      directory: where the files go.
      keep: how many checkpoints remain there.
      writes: whether this process is the one that writes them. All workers of a
        strategy must save, as statistics are averaged over them; the files of
        the others are thrown away.
      reader: maps the path of a file to what restores it; None is `checkpoint`
        for all files.
    """
    self._checkpoint = checkpoint
    self._directory = directory
    self._reader = reader or (lambda path: checkpoint)
    self._manager = None
    if writes:
      _remove_broken_state_file(directory)
      self._manager = tf.train.CheckpointManager(checkpoint, directory, keep)

  def save(self, step: int) -> str:
    """Writes a checkpoint; older ones go only when the new one is whole.

    Returns:
      Its path, without the suffixes of its files.

    Raises:
      CheckpointError: it cannot be written; those before it stay.
    """
    try:
      if self._manager is not None:
        return self._manager.save(checkpoint_number=step)
      with tempfile.TemporaryDirectory() as folder:
        return self._checkpoint.write(os.path.join(folder, 'ckpt'))
    except (tf.errors.OpError, OSError) as error:
      raise errors.CheckpointError(
        f'{self._directory}: cannot write the checkpoint of step {step}'
        f' ({errors.first_line(error)}); those before it are intact'
      ) from error

  def restore(self) -> Optional[str]:
    """Restores the newest readable checkpoint.

    Returns:
      Its path, or None if there is no checkpoint at all.

    Raises:
      CheckpointError: there are checkpoints, but none can be read.
    """
    paths = checkpoint_paths(self._directory)
    for path in paths:
      try:
        self._reader(path).restore(path).assert_consumed()
        return path
      except _DAMAGE as error:
        logging.warning('Cannot read %s: %s', path, errors.first_line(error))
    if paths:
      raise errors.CheckpointError(_unreadable(self._directory, len(paths)))
    return None


def _remove_broken_state_file(directory: str) -> None:
  """Removes TensorFlow's list of checkpoints if it is empty after a crash.

  The next save writes it again; restoring does not need it.
  """
  path = os.path.join(directory, 'checkpoint')
  if not tf.io.gfile.exists(path):
    return
  try:
    state = tf.train.get_checkpoint_state(directory)
    intact = bool(state and state.model_checkpoint_path)
  except ValueError:
    intact = False
  if not intact:
    logging.warning('%s is damaged; the checkpoints are found without it', path)
    tf.io.gfile.remove(path)


def digest(model: tf.keras.Model) -> str:
  """Returns a short name of a network's weights; others have another one."""
  state = hashlib.sha256()
  for variable in model.variables:
    state.update(variable.numpy().tobytes())
  return state.hexdigest()[:16]


def read(
  checkpoint: str, weights: str = 'ema'
) -> tuple[dict[str, np.ndarray], int]:
  """Reads the weights of a run as numbers, whatever its network.

  Args:
    checkpoint: a model_dir, its `checkpoints` folder, or the path of one
      checkpoint without the suffixes of its files.
    weights: `'ema'`, the moving average of the weights, or `'raw'`.

  Returns:
    Values by their places in the network, such as `stem/kernel`, and the step
    after which the checkpoint was written.

  Raises:
    CheckpointError: there is no checkpoint, all are damaged, or they are not of
      a run.
  """
  found = _candidates(checkpoint)
  prefix = f'{_PARTS[weights]}/'
  for path in found:
    try:
      reader = tf.train.load_checkpoint(path)
      places = {
        name[len(prefix) : -len(_SUFFIX)]: name
        for name in reader.get_variable_to_shape_map()
        if name.startswith(prefix) and name.endswith(_SUFFIX)
      }
      values = {place: reader.get_tensor(n) for place, n in places.items()}
      step = int(reader.get_tensor(_STEP)) if reader.has_tensor(_STEP) else 0
    except _DAMAGE as error:
      logging.warning('Cannot read %s: %s', path, errors.first_line(error))
      continue
    if not values:
      raise errors.CheckpointError(
        f'{path}: not the checkpoint of a run; published weights become one by'
        ' tools/import_checkpoint.py'
      )
    return values, step
  raise errors.CheckpointError(_unreadable(checkpoint, len(found)))


def is_run(checkpoint: str) -> bool:
  """Whether the newest checkpoint that can be read there is one of a run.

  Args:
    checkpoint: as `read` takes it; nothing needs to be there.
  """
  try:
    found = _candidates(checkpoint)
  except errors.CheckpointError:
    return tf.io.gfile.exists(os.path.join(checkpoint, paths.CONFIG))
  for path in found:
    try:
      names = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    except _DAMAGE:
      continue
    return any(name.startswith(f'{_PARTS["ema"]}/') for name in names)
  return True  # `read` reports the damage.


def run_settings(checkpoint: str) -> dict[str, Any]:
  """Reads the section `model` of a run's `config.yaml`.

  Args:
    checkpoint: as `read` takes it.

  Returns:
    Values by their keys; nothing if there is no readable `config.yaml`.
  """
  given = checkpoint.rstrip('/')
  parent = os.path.dirname(given)
  for folder in (given, parent, os.path.dirname(parent)):
    place = os.path.join(folder, paths.CONFIG)
    if tf.io.gfile.exists(place):
      try:
        settings = recipes.read_yaml(place).get('model')
      except errors.ConfigError:
        return {}
      return settings if isinstance(settings, dict) else {}
  return {}


def _candidates(checkpoint: str) -> list[str]:
  """Returns the checkpoints that `read` may read, best first."""
  if tf.io.gfile.exists(f'{checkpoint}.index'):
    return [checkpoint]
  for directory in (os.path.join(checkpoint, paths.CHECKPOINTS), checkpoint):
    found = checkpoint_paths(directory)
    if found:
      return found
  raise errors.CheckpointError(
    f'{checkpoint}: no checkpoint found; give a model_dir that a training run'
    ' has written, or the path of a checkpoint'
  )


def _unreadable(place: str, number: int) -> str:
  return (
    f'{place}: none of {number} checkpoints can be read: damaged, or of'
    ' another model (the warnings above name each)'
  )
