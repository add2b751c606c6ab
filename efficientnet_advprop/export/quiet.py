"""Hides notes of TensorFlow that an export causes and that need no action."""

from collections.abc import Iterator
import contextlib
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
