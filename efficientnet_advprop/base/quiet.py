"""Hides notes of TensorFlow that need no action."""

from collections.abc import Iterator
import contextlib
import os
import tempfile
import warnings

from absl import logging
import tensorflow as tf


@contextlib.contextmanager
def quiet_logs() -> Iterator[None]:
  """Hides TensorFlow's notes on names and paths, which need no action."""
  levels = logging.get_verbosity(), tf.get_logger().level
  logging.set_verbosity(logging.WARNING)
  tf.get_logger().setLevel('WARNING')
  try:
    with warnings.catch_warnings():
      # For example that TFLite will leave the package of TensorFlow.
      warnings.simplefilter('ignore', UserWarning)
      warnings.simplefilter('ignore', DeprecationWarning)
      yield
  finally:
    logging.set_verbosity(levels[0])
    tf.get_logger().setLevel(levels[1])


@contextlib.contextmanager
def quiet_conversion() -> Iterator[None]:
  """Hides also what TFLite's native code writes to the standard error.

  It writes a summary of each conversion there, whatever the log level. If the
  conversion fails, the text is written after all.
  """
  with quiet_logs(), hidden_standard_error():
    yield


@contextlib.contextmanager
def hidden_standard_error() -> Iterator[None]:
  """Hides what native code writes to the standard error of the process.

  After an exception the text is written after all.
  """
  with tempfile.TemporaryFile() as hidden:
    standard_error = os.dup(2)
    os.dup2(hidden.fileno(), 2)
    try:
      yield
    except BaseException:
      hidden.seek(0)
      os.write(standard_error, hidden.read())
      raise
    finally:
      os.dup2(standard_error, 2)
      os.close(standard_error)


def hide_note_on_compilation() -> None:
  """Makes XLA's first compilation in this process, whose note is hidden.

  TensorFlow 2.15 writes two lines at that moment, whatever the log level: that
  log messages come before `absl::InitializeLog()`, and that a cluster was
  compiled. It writes them once in a process.
  """
  with hidden_standard_error():
    tf.function(tf.identity, jit_compile=True)(tf.constant(0.0))
