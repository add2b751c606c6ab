"""Frees iterators of tf.data without waiting for them.

An iterator ends when its threads have ended. The one that tunes the pipeline
misses TensorFlow's request in about half of all cases, and then sleeps out its
period: a second after a few seconds of input, up to a minute after minutes
(TensorFlow 2.15 and 2.21).
"""

import atexit
from collections.abc import Iterator
import contextlib
import os
import sys
import threading
from typing import Any

from absl import logging

_threads: list[threading.Thread] = []


@contextlib.contextmanager
def disposing(value: Any, at_once: bool = False) -> Iterator[list[Any]]:
  """Frees a value in a thread of its own when the context ends.

  Args:
    value: what nothing outside the context refers to.
    at_once: wait for it. That is for processes that end together, of which
      none may leave the others by `end_process`.

  Yields:
    A list with the value, which is empty after the context.
  """
  held = [value]
  del value
  try:
    yield held
  finally:
    if at_once:
      held.clear()
    else:
      thread = threading.Thread(target=held.clear, daemon=True)
      _threads[:] = [each for each in _threads if each.is_alive()]
      _threads.append(thread)
      thread.start()


@atexit.register
def wait() -> None:
  """Waits for all threads. Python must not end before TensorFlow's own have."""
  for thread in _threads:
    thread.join()


def end_process(code: int) -> None:
  """Ends the process with an exit code if values are still being freed.

  Otherwise it returns, so that the process ends as usual.
  """
  if any(thread.is_alive() for thread in _threads):
    sys.stdout.flush()
    sys.stderr.flush()
    logging.flush()
    os._exit(code)
