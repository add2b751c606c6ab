"""Runs tasks on images in many processes, and logs the progress."""

from collections.abc import Iterator, Sequence
import concurrent.futures
import concurrent.futures.process
import multiprocessing
import os
import threading
from typing import Any, Callable, Optional

import tensorflow as tf

from efficientnet_advprop.base import errors
from efficientnet_advprop.base import progress

_SECONDS_PER_REPORT = 10
# Images that all processes are done with; set in each worker.
_done: Optional[Any] = None


def count_image() -> None:
  """Counts an image with which this worker is done."""
  if _done is not None:
    with _done.get_lock():
      _done.value += 1


def _start_worker(done: Any) -> None:
  """Counts images in `done`, and ends the worker when its parent is gone.

  The workers of a killed program would otherwise continue to write files, which
  the program also writes when it is started again.
  """
  global _done
  _done = done
  tf.config.threading.set_intra_op_parallelism_threads(1)
  tf.config.threading.set_inter_op_parallelism_threads(1)
  parent = multiprocessing.parent_process()

  def watch() -> None:
    if parent is not None:
      parent.join()
      os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


def run(
  function: Callable[[Any], dict[str, Any]],
  tasks: Sequence[Any],
  num_images: int,
  num_workers: int,
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Applies a function to all tasks, and logs the progress.

  Args:
    function: of a module that can be imported by its name; it calls
      `count_image` for each image.
    tasks: each has a `number`.
    num_images: the number of images in all tasks.
    num_workers: the number of processes.

  Yields:
    The number and the result of each task, in the order in which they end.

  Raises:
    UserError: a worker was killed.
  """
  # TensorFlow is loaded once and does not survive a fork once it has run.
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload(['tensorflow', function.__module__])
  done = context.Value('q', 0)
  report = progress.Progress('images')
  with concurrent.futures.ProcessPoolExecutor(
    num_workers, context, _start_worker, (done,)
  ) as pool:
    futures = {pool.submit(function, task): task.number for task in tasks}
    pending = set(futures)
    try:
      while pending:
        finished, pending = concurrent.futures.wait(
          pending, _SECONDS_PER_REPORT, concurrent.futures.FIRST_COMPLETED
        )
        for future in finished:
          yield futures[future], future.result()
        if done.value:
          report(done.value, num_images)
    except concurrent.futures.process.BrokenProcessPool:
      raise errors.UserError(
        'a worker was killed (out of memory?); run it again'
      ) from None
    finally:  # After an error, do not wait for all other tasks.
      for future in pending:
        future.cancel()
