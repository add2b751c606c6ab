"""Exported versions: written under a hidden name, then published by number.

TF Serving polls the export folder and loads every folder whose name is a
number, so that a version must be whole before it gets one.
"""

from collections.abc import Iterator
import contextlib
import os
import time
import uuid

import tensorflow as tf

from efficientnet_advprop.base import errors
from efficientnet_advprop.base import files

LAST_VERSION_FILE = 'last_version.txt'  # Next to the versions.


@contextlib.contextmanager
def export_errors(export_dir: str) -> Iterator[None]:
  """Turns what the file system refuses into an ExportError.

  Args:
    export_dir: for the message.
  """
  try:
    yield
  except OSError as error:
    reason = error.strerror or str(error)
    raise errors.ExportError(
      f'{export_dir}: cannot be written to: {reason}'
    ) from error
  except tf.errors.OpError as error:
    reason = error.message.splitlines()[0]
    raise errors.ExportError(
      f'{export_dir}: cannot be written to: {reason}'
    ) from error


@contextlib.contextmanager
def new_version(export_dir: str) -> Iterator[str]:
  """Yields a folder for a version; `publish` gives it its number.

  On failure, removes the folder.

  Args:
    export_dir: the model's base folder on the server.

  Raises:
    ExportError: the folder cannot be made.
  """
  # A server looks only at folders whose names are numbers.
  folder = os.path.join(export_dir, f'incomplete-{uuid.uuid4().hex}')
  try:
    with export_errors(export_dir):
      tf.io.gfile.makedirs(folder)
    yield folder
  finally:
    if tf.io.gfile.exists(folder):
      tf.io.gfile.rmtree(folder)


def publish(folder: str) -> str:
  """Renames the folder of a whole version to its number.

  The number is the time in seconds, or one more than the last number if that is
  higher. The last number is kept in a file, so that a server never sees the
  number of a deleted version again.

  Args:
    folder: of `new_version`.

  Returns:
    The version's folder, `<export_dir>/<number>`.

  Raises:
    ExportError: the file system refuses.
  """
  export_dir = os.path.dirname(folder)
  record = os.path.join(export_dir, LAST_VERSION_FILE)
  with export_errors(export_dir):
    names = [name.rstrip('/') for name in tf.io.gfile.listdir(export_dir)]
    numbers = [int(name) for name in names if name.isdigit()]
    version = max(int(time.time()), 1 + max([_last_version(record), *numbers]))
    # Recorded first: if the rename fails, the number is lost, not given twice.
    files.write(record, f'{version}\n')
    path = os.path.join(export_dir, str(version))
    tf.io.gfile.rename(folder, path)
  return path


def _last_version(record: str) -> int:
  if not tf.io.gfile.exists(record):
    return 0
  with tf.io.gfile.GFile(record) as file:
    text = file.read().strip()
  return int(text) if text.isdigit() else 0
