"""Watches the input of training: how long steps wait, and whether it stalls."""

from collections.abc import Iterator
import contextlib
import threading
import time
from typing import Any

from absl import logging
import tensorflow as tf

STALLED_SECONDS = 60.0
# Seconds between two looks at the counters.
_PERIOD = 0.02


class InputWatch:
  """Compares the batches that steps need with those that have arrived.

  The compiled loop of steps counts both; a thread looks at the counts. The loop
  itself cannot read a clock, because TensorFlow refuses it where operations are
  deterministic.
  """

  def __init__(self) -> None:
    # On the host, where reading them does not wait for an accelerator.
    with tf.device('CPU:0'):
      self._needed = tf.Variable(0, trainable=False, dtype=tf.int64)
      self._arrived = tf.Variable(0, trainable=False, dtype=tf.int64)
    self._waited = 0.0

  def next(self, iterator: Any, done: tf.Tensor) -> Any:
    """Returns the next batch, in a graph.

    Args:
      iterator: over batches.
      done: what the previous step computes; this step needs its batch from then
        on. The batch may be fetched earlier.
    """
    with tf.device('CPU:0'):
      self._needed.assign_add(1 + _zero_after(done))
    batch = next(iterator)
    with tf.control_dependencies(tf.nest.flatten(batch, True)):
      arrived = self._arrived.assign_add(1)
    # The step must come after the count, which a single thread would otherwise
    # leave for last. The batches of several replicas stay on their devices.
    with tf.control_dependencies([arrived]):
      return tf.nest.map_structure(
        lambda v: tf.identity(v) if isinstance(v, tf.Tensor) else v, batch
      )

  def take_waited(self) -> float:
    """Returns the seconds that steps have waited since the last call."""
    waited, self._waited = self._waited, 0.0
    return waited

  @contextlib.contextmanager
  def reporting(self, seconds: float = STALLED_SECONDS) -> Iterator[None]:
    """Watches, and logs a line whenever no batch comes for `seconds`."""
    ended = threading.Event()
    thread = threading.Thread(
      target=self._watch, args=(seconds, ended), daemon=True
    )
    thread.start()
    try:
      yield
    finally:
      ended.set()
      thread.join()

  def _watch(self, seconds: float, ended: threading.Event) -> None:
    seen, waited, then = -1, 0.0, time.monotonic()
    while not ended.wait(_PERIOD):
      needed, arrived = (int(v.numpy()) for v in (self._needed, self._arrived))
      now = time.monotonic()
      passed, then = now - then, now
      if needed <= arrived or arrived != seen:
        seen, waited = arrived, 0.0
        continue
      self._waited += passed
      waited += passed
      if waited >= seconds:
        logging.warning(
          'The input stalls: no batch for %.0f seconds (%d came before)',
          waited,
          arrived,
        )
        waited = 0.0


def _zero_after(done: tf.Tensor) -> tf.Tensor:
  """Returns 0, int64, once the value of `done` is there.

  A control dependency would not wait: to TensorFlow an operation on a GPU is
  done as soon as it is queued there.
  """
  never = tf.reduce_any((done > 0) & (done < 0))
  return tf.cast(never, tf.int64)
