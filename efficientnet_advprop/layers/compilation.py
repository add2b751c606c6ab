"""Functions that XLA compiles, in another thread while a step is traced."""

from collections.abc import Iterator
from concurrent import futures
import contextlib
import functools
import os
import threading
from typing import Any, Callable, Optional

import tensorflow as tf

# XLA compiles one function in a thread of its own. More threads would wait for
# the one that traces, which creates the shapes that they compile for.
_MOST_THREADS = 4


class _Ahead:
  """Compiles functions for the shapes of their first calls, in threads."""

  def __init__(self, threads: int):
    self._pool = futures.ThreadPoolExecutor(threads)
    self._known: set[Any] = set()
    self._graphs: dict[Any, Any] = {}
    self._lock = threading.Lock()

  def start(self, trace: Any, arguments: tuple[tf.Tensor, ...]) -> None:
    """Starts to compile, unless that was done or a shape is not known."""
    shapes = tuple(tuple(each.shape) for each in arguments)
    key = trace.name, shapes
    if key in self._known or any(None in shape for shape in shapes):
      return
    self._known.add(key)
    types = [each.dtype for each in arguments]
    self._pool.submit(self._compile, trace, shapes, types)

  def _compile(self, trace: Any, shapes: Any, types: Any) -> None:
    with self._lock:
      # XLA's cache is shared among the calls from graphs, not those from
      # Python.
      if trace.name not in self._graphs:
        graph = tf.function(
          lambda *arguments: trace(*arguments), autograph=False
        )
        specs = trace.structured_input_signature[0]
        self._graphs[trace.name] = graph.get_concrete_function(*specs)
    values = [tf.zeros(shape, kind) for shape, kind in zip(shapes, types)]
    self._graphs[trace.name](*values)

  def end(self) -> None:
    """Drops what has not begun, and waits for the rest."""
    self._pool.shutdown(cancel_futures=True)


_ahead: Optional[_Ahead] = None


@contextlib.contextmanager
def compiling_ahead() -> Iterator[None]:
  """Compiles what is traced within this context while tracing continues.

  Otherwise XLA compiles each function when the step first gets to it, one after
  another, and the other cores wait. Within the context a function is compiled
  by running it on zeros in another thread; the step then finds it compiled. An
  error there is left to the step, which meets it again. On a single core this
  does nothing.

  Yields:
    Nothing.
  """
  global _ahead
  threads = min(_usable_cores() - 1, _MOST_THREADS)
  own = _Ahead(threads) if threads else None
  outer, _ahead = _ahead, own
  try:
    yield
  finally:
    _ahead = outer
    if own is not None:
      own.end()


def _usable_cores() -> int:
  if hasattr(os, 'sched_getaffinity'):  # Linux.
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
  """Compiles a function by XLA, once for every shape of its arguments.

  It is traced without shapes, once for all layers, because TensorFlow takes
  longer to trace some of these functions than XLA to compile them. So what it
  returns has no static shape.
  """
  traces: dict[Any, Any] = {}

  @functools.wraps(function)
  def run(*arguments: tf.Tensor, **settings: float) -> Any:
    specs = [
      tf.TensorSpec([None] * each.shape.rank, each.dtype) for each in arguments
    ]
    key = (*specs, *settings.items())
    if key not in traces:
      graph = tf.function(
        functools.partial(function, **settings),
        jit_compile=True,
        autograph=False,
      )
      traces[key] = graph.get_concrete_function(*specs)
    if _ahead is not None:
      _ahead.start(traces[key], arguments)
    return traces[key](*arguments)

  return run
