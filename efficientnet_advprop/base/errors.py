"""Errors that users can fix: each message is one line that says what and how.

A command catches `UserError`, prints its message and ends with
`EXIT_USER_ERROR`; everything else is a defect of the program and keeps its
traceback.
"""

from typing import Any

EXIT_INCOMPLETE = 1  # A part of the work failed and was reported.
EXIT_USER_ERROR = 2
EXIT_UNREAD = 141  # As a shell reports a process that SIGPIPE ended.
EXIT_TERMINATED = 143  # As a shell reports a process that SIGTERM ended.

# Longer lines lose their middle.
_MAX_LINE = 240


class UserError(Exception):
  """An error that the user can fix; the message is one line."""


class ConfigError(UserError, ValueError):
  """A setting or flag whose value is not allowed."""

  def __init__(self, key: str, value: Any, allowed: str):
    """Creates the error.

    Args:
      key: name of the setting or flag, such as `train.epochs`.
      value: what was given.
      allowed: which values are allowed.
    """
    self.key, self.value, self.allowed = key, value, allowed
    super().__init__(f'{key}: got {value!r}; allowed: {allowed}')

  def under(self, prefix: str) -> 'ConfigError':
    """Returns the same error with `prefix.` before its key."""
    return ConfigError(f'{prefix}.{self.key}', self.value, self.allowed)


class DataError(UserError, ValueError):
  """Data that cannot be used; names the file, the record and the reason."""


class CheckpointError(UserError, ValueError):
  """Weights that are missing, damaged or of another network."""


class ExportError(UserError, ValueError):
  """An export that cannot be written or must not be used."""


class LockedError(UserError, RuntimeError):
  """A folder that another process is writing."""


class TrainingError(UserError, RuntimeError):
  """A training run that cannot continue."""


class WorkerLostError(UserError, RuntimeError):
  """Another worker of a distributed run has ended."""


def first_line(error: BaseException) -> str:
  """Returns the first line of an error's message, shortened in the middle.

  TensorFlow puts a path first and the reason last, so both ends are kept.
  """
  line = (str(error).strip().splitlines() or [type(error).__name__])[0]
  return line if len(line) <= _MAX_LINE else f'{line[:80]} ... {line[-155:]}'
