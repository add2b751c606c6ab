"""Stops training on SIGTERM and SIGINT (Ctrl-C): the first asks, a second ends.

Python runs signal handlers between two bytecodes, hence not before a compiled
interval of many steps has ended. The system writes each signal's number to a
pipe at once, and a thread reads it.
"""

import os
import signal
import socket
import threading
import time
from types import TracebackType
from typing import Any, Optional

from absl import logging

from efficientnet_advprop.base import errors

_NUMBERS = (signal.SIGTERM, signal.SIGINT)
# A terminal and a parent process may both pass on one and the same Ctrl-C.
_SAME_REQUEST_SECONDS = 1.0


class StoppedError(Exception):
  """SIGTERM or SIGINT arrived; the state is saved."""


class Stopper:
  """A context in which signals request a stop.

  Attributes:
    requested: whether a signal has arrived.
  """

  def __init__(self) -> None:
    self.requested = False
    self._first = 0.0
    self._previous: dict[int, Any] = {}
    self._sockets: tuple[socket.socket, ...] = ()

  def __enter__(self) -> 'Stopper':
    if threading.current_thread() is not threading.main_thread():
      return self  # Only the main thread may handle signals.
    self._sockets = reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    for number in _NUMBERS:
      # The handler does nothing; the thread acts.
      self._previous[number] = signal.signal(number, lambda *_: None)
    threading.Thread(target=self._read, args=(reader,), daemon=True).start()
    return self

  def __exit__(
    self,
    kind: Optional[type[BaseException]],
    error: Optional[BaseException],
    traceback: Optional[TracebackType],
  ) -> None:
    if not self._sockets:
      return
    signal.set_wakeup_fd(-1)
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    _, writer = self._sockets
    writer.close()  # Ends the thread.
    self._sockets = ()

  def _read(self, reader: socket.socket) -> None:
    with reader:
      while numbers := reader.recv(16):
        for number in numbers:
          if number in _NUMBERS:
            self.request()

  def request(self) -> None:
    """Requests a stop; a second request ends the process at once."""
    now = time.monotonic()
    if not self.requested:
      self.requested, self._first = True, now
      logging.info(
        'Signal received: stopping after this log interval; a second one ends'
        ' at once, back at the last checkpoint'
      )
    elif now - self._first > _SAME_REQUEST_SECONDS:
      logging.info('Second signal received: ending at once')
      logging.flush()
      os._exit(errors.EXIT_TERMINATED)
