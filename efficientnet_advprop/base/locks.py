"""Locks that keep two processes from writing the same folder."""

from collections.abc import Iterator
import contextlib
import datetime
import json
import os
import socket
from typing import Optional

from absl import logging
import tensorflow as tf

from efficientnet_advprop.base import errors

try:
  import fcntl
except ImportError:  # Windows has no such locks.
  fcntl = None  # type: ignore[assignment]

FILE = '.lock'


@contextlib.contextmanager
def locked(folder: str, advice: str = '') -> Iterator[None]:
  """Keeps other processes that call this out of a folder.

  On a local file system the operating system holds the lock, so that a killed
  process leaves none behind. A bucket has no such locks: there a file names the
  host and the process while they work, and a process that finds one warns and
  continues, because a killed process leaves its file behind.

  Args:
    folder: local or remote; it exists.
    advice: what the user can do instead, for the message.

  Raises:
    LockedError: another process holds the lock; names its host and process.
  """
  path = os.path.join(folder, FILE)
  if '://' in folder or fcntl is None:
    with _announced(path):
      yield
    return
  with open(path, 'a+', encoding='utf-8') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      owner = _owner(file.read()) or 'another process'
      raise errors.LockedError(
        f'{folder}: {owner} is writing here{advice and f"; {advice}"}'
      ) from None
    file.truncate(0)
    file.write(_identity())
    file.flush()
    try:
      yield
    finally:
      file.truncate(0)  # Nobody is named while nobody works.


@contextlib.contextmanager
def _announced(path: str) -> Iterator[None]:
  if tf.io.gfile.exists(path):
    with tf.io.gfile.GFile(path) as file:
      owner = _owner(file.read())
    if owner:
      logging.warning(
        '%s: %s writes here, or was killed; two at once spoil a run',
        path,
        owner,
      )
  with tf.io.gfile.GFile(path, 'w') as file:
    file.write(_identity())
  try:
    yield
  finally:
    if tf.io.gfile.exists(path):
      tf.io.gfile.remove(path)


def _identity() -> str:
  now = datetime.datetime.now(datetime.timezone.utc)
  values = {
    'host': socket.gethostname(),
    'process': os.getpid(),
    'since': now.strftime('%Y-%m-%d %H:%M:%S UTC'),
  }
  return json.dumps(values) + '\n'


def _owner(text: str) -> Optional[str]:
  """Returns what a lock's file says of its owner, if it says anything."""
  try:
    values = json.loads(text)
    return (
      f'process {values["process"]} on {values["host"]}, since'
      f' {values["since"]},'
    )
  except (ValueError, TypeError, KeyError):
    return None
