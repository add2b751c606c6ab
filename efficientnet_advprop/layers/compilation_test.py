import os
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.layers import compilation

_MANY_CORES = pytest.mark.skipif(
  compilation._usable_cores() < 2, reason='one core compiles nothing ahead'
)


@compilation.compiled
def _product(x: tf.Tensor, y: tf.Tensor, times: int) -> tf.Tensor:
  return times * x * y


@pytest.fixture(name='started')
def _started(monkeypatch):
  """Threads and shapes of what is compiled ahead."""
  started = []
  compile_for = compilation._Ahead._compile

  def compiling(self, trace, shapes, types):
    started.append((threading.get_ident(), shapes))
    compile_for(self, trace, shapes, types)

  monkeypatch.setattr(compilation._Ahead, '_compile', compiling)
  monkeypatch.setattr(compilation, '_usable_cores', lambda: 2)
  return started


def _traced(*shapes):
  @tf.function
  def run(x):
    outputs = []
    for shape in shapes:
      value = tf.reshape(x, shape)
      outputs.append(tf.reshape(_product(value, value, times=3), [-1]))
    return outputs

  return run


def test_each_shape_is_compiled_once_in_another_thread(started):
  x = tf.range(12.0)
  run = _traced([12], [3, 4], [4, 3], [3, 4])
  with compilation.compiling_ahead():
    run.get_concrete_function(x)
    compilation._ahead._pool.shutdown()  # Waits; a step would not.
  outputs = run(x)
  threads, shapes = zip(*started)
  assert threading.get_ident() not in threads
  assert sorted(shapes) == [((3, 4),) * 2, ((4, 3),) * 2, ((12,),) * 2]
  for output in outputs:
    np.testing.assert_array_equal(output, 3 * x * x)


def test_nothing_is_compiled_ahead_outside_or_without_shapes(started):
  _traced([12])(tf.range(12.0))
  run = tf.function(lambda x: _product(x, x, times=2))
  with compilation.compiling_ahead():
    concrete = run.get_concrete_function(tf.TensorSpec([None], tf.float32))
  assert not started
  np.testing.assert_array_equal(concrete(tf.constant([3.0])), [18])


def test_a_single_core_compiles_nothing_ahead(started, monkeypatch):
  monkeypatch.setattr(compilation, '_usable_cores', lambda: 1)
  with compilation.compiling_ahead():
    _traced([12])(tf.range(12.0))
  assert not started


def test_an_error_ahead_is_left_to_the_step(monkeypatch):
  def fails(*_):
    raise MemoryError

  monkeypatch.setattr(compilation._Ahead, '_compile', fails)
  with compilation.compiling_ahead():
    (output,) = _traced([12])(tf.ones([12]))
  np.testing.assert_array_equal(output, [3] * 12)


_SCRIPT = """
import threading
import tensorflow as tf
from efficientnet_advprop.layers import compilation
function = compilation.compiled(lambda x: x * x)
with compilation.compiling_ahead():
  run = tf.function(lambda x: function(x))
  run.get_concrete_function(tf.TensorSpec([7, 3], tf.float32))
  compilation._ahead._pool.shutdown()
print(float(run(tf.ones([7, 3]))[0, 0]))
"""


@_MANY_CORES
def test_the_step_finds_what_was_compiled_ahead():
  """By the log of XLA's cache, which is the only one that can tell."""
  settings = {
    'TF_CPP_MIN_LOG_LEVEL': '0',
    'TF_CPP_VMODULE': 'device_compiler=2',
    'TF_USE_LEGACY_KERAS': '1',
  }
  done = subprocess.run(
    [sys.executable, '-c', _SCRIPT],
    env={**os.environ, **settings},
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout == '1.0\n'
  found = re.findall(r'cache entry hit: (\d)', done.stderr)
  assert found[0] == '0'  # The one that is compiled.
  assert len(found) == 2 and found[1] != '0'
