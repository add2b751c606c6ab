"""Saving and restoring: atomic, newest readable first, checked for the model.

A checkpoint holds `model` (the weights being trained), `ema` (their moving
average, of every domain's statistics too) and `optimizer` with the step.
"""

from collections.abc import Mapping
import hashlib
import os
import re
import tempfile
from typing import Optional

from absl import logging
import numpy as np
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import paths

# Around the names of variables in a checkpoint's file.
_PREFIX, _SUFFIX = 'ema/', '/.ATTRIBUTES/VARIABLE_VALUE'
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
  ):
    """Creates the manager, and the directory if it is not there.

    Args:
      checkpoint: what to save.
      directory: where the files go.
      keep: how many checkpoints remain there.
      writes: whether this process is the one that writes them. All workers of a
        strategy must save, as statistics are averaged over them; the files of
        the others are thrown away.
    """
    self._checkpoint = checkpoint
    self._directory = directory
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
        self._checkpoint.restore(path).assert_consumed()
        return path
      except _DAMAGE as error:
        logging.warning('Cannot read %s: %s', path, errors.first_line(error))
    if paths:
      raise errors.CheckpointError(_unreadable(self._directory, len(paths)))
    return None


def _remove_broken_state_file(directory: str) -> None:
  """Removes TensorFlow's list of checkpoints if it is empty after a crash.

  The next save writes it anew; restoring does not need it.
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


def restore(
  model: tf.keras.Model, checkpoint: str, weights: str = 'ema'
) -> int:
  """Restores the weights of a network from a training checkpoint.

  Args:
    model: with all or, for inference, none of the auxiliary domains that the
      checkpoint holds.
    checkpoint: a model_dir, its `checkpoints` folder, or the path of one
      checkpoint without the suffixes of its files.
    weights: `'ema'`, the moving average of the weights, or `'raw'`.

  Returns:
    The step after which the checkpoint was written.

  Raises:
    CheckpointError: there is none, it is damaged, or it does not hold every
      variable of the model in its shape.
  """
  config_lib.check_choice('weights', weights, ('ema', 'raw'))
  paths = _candidates(checkpoint)
  step = tf.Variable(0, dtype=tf.int64)
  optimizer = tf.train.Checkpoint(_iterations=step)
  part = 'model' if weights == 'raw' else 'ema'
  root = tf.train.Checkpoint(optimizer=optimizer, **{part: model})
  for path in paths:
    try:
      status = root.read(path)
      status.expect_partial()
      status.assert_existing_objects_matched()
      return int(step)
    except _DAMAGE as error:
      logging.warning('Cannot read %s: %s', path, errors.first_line(error))
  raise errors.CheckpointError(_unreadable(checkpoint, len(paths)))


def digest(model: tf.keras.Model) -> str:
  """A short name of a network's weights; others have another one."""
  state = hashlib.sha256()
  for variable in model.variables:
    state.update(variable.numpy().tobytes())
  return state.hexdigest()[:16]


def read_average(checkpoint: str) -> dict[str, np.ndarray]:
  """Reads the averaged weights of a run as numbers, whatever its network.

  Args:
    checkpoint: as `restore` takes it.

  Returns:
    Values by their places in the network, such as `stem/kernel`.

  Raises:
    CheckpointError: there is no checkpoint, it is damaged, or it is not one of
      a run.
  """
  paths = _candidates(checkpoint)
  for path in paths:
    try:
      reader = tf.train.load_checkpoint(path)
      values = {
        name[len(_PREFIX) : -len(_SUFFIX)]: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name.startswith(_PREFIX) and name.endswith(_SUFFIX)
      }
    except _DAMAGE as error:
      logging.warning('Cannot read %s: %s', path, errors.first_line(error))
      continue
    if not values:
      raise errors.CheckpointError(
        f'{path}: not the checkpoint of a run; published weights become one by'
        ' tools/import_checkpoint.py'
      )
    return values
  raise errors.CheckpointError(_unreadable(checkpoint, len(paths)))


def assign(
  variables: Mapping[str, tf.Variable],
  values: Mapping[str, np.ndarray],
  source: str,
) -> None:
  """Gives each variable its value.

  Args:
    variables: by their names.
    values: by the same names.
    source: where they come from.

  Raises:
    CheckpointError: a value is missing, left over or of another shape. No
      variable has changed.
  """
  missing = sorted(set(variables) - set(values))
  surplus = sorted(set(values) - set(variables))
  problems = []
  for title, keys in (('lacks', missing), ('has beyond it', surplus)):
    if keys:
      more = f' and {len(keys) - 1} more' if len(keys) > 1 else ''
      problems.append(f'{title} {keys[0]}{more}')
  for name in sorted(set(variables) & set(values)):
    found, expected = values[name].shape, tuple(variables[name].shape)
    if found != expected:
      problems.append(f'{name} has the shape {found}, not {expected}')
      break
  if problems:
    raise errors.CheckpointError(
      f'{source}: not the variables of this network: {"; ".join(problems)}'
    )
  for name, variable in variables.items():
    variable.assign(values[name])


def _candidates(checkpoint: str) -> list[str]:
  """The checkpoints that `restore` may read, best first."""
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
