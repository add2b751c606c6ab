import subprocess
import sys
import threading
import time

from efficientnet_advprop.base import disposal


class _Slow:
  """Takes its time to be freed, like an iterator of tf.data."""

  def __init__(self, freed):
    self._freed = freed

  def __del__(self):
    time.sleep(0.5)
    self._freed.set()


def test_a_value_is_freed_while_the_program_goes_on():
  freed = threading.Event()
  with disposal.disposing(_Slow(freed)) as held:
    assert isinstance(held[0], _Slow)
  assert not freed.is_set()
  disposal.wait()
  assert freed.is_set() and not held


def test_a_value_is_freed_at_once_where_processes_end_together():
  freed = threading.Event()
  with disposal.disposing(_Slow(freed), at_once=True):
    pass
  assert freed.is_set()


_ENDS = """
import sys
import threading
from efficientnet_advprop.base import disposal

class Endless:
  def __del__(self):
    threading.Event().wait()

with disposal.disposing(Endless()):
  print('shown')
disposal.end_process(143)
"""


def test_a_process_ends_without_waiting():
  done = subprocess.run(
    [sys.executable, '-c', _ENDS], capture_output=True, text=True, timeout=60
  )
  assert (done.returncode, done.stdout) == (143, 'shown\n')


def test_a_process_without_anything_to_free_goes_on():
  disposal.wait()
  disposal.end_process(1)
