import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest

from efficientnet_advprop.base import errors
from efficientnet_advprop.training import stopping

# Blocks in one call without the interpreter, as a compiled interval does.
_PROGRAM = """
import hashlib, sys
from absl import logging
from efficientnet_advprop.training import stopping
logging.set_verbosity(logging.INFO)
with stopping.Stopper() as stopper:
  print('ready', flush=True)
  hashlib.pbkdf2_hmac('sha256', b'', b'', int(sys.argv[1]))
print(stopper.requested)
"""


def _start(rounds):
  process = subprocess.Popen(
    [sys.executable, '-c', _PROGRAM, str(rounds)],
    cwd=Path(__file__).parents[2],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'ready\n'
  return process


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(number):
  process = _start(10**9)
  process.send_signal(number)
  # The log says so at once, although the program is within a call.
  assert 'stopping after this log interval' in process.stderr.readline()
  time.sleep(stopping._SAME_REQUEST_SECONDS + 0.2)
  assert process.poll() is None
  process.send_signal(number)
  _, log = process.communicate(timeout=20)
  assert process.returncode == errors.EXIT_TERMINATED
  assert 'ending at once' in log


def test_signals_in_quick_succession_are_one_request():
  """A terminal and a parent process pass on the same Ctrl-C."""
  process = _start(10**6)
  process.send_signal(signal.SIGINT)
  process.send_signal(signal.SIGTERM)
  output, _ = process.communicate(timeout=30)
  assert process.returncode == 0 and output == 'True\n'


def test_handlers_come_back():
  before = signal.getsignal(signal.SIGTERM)
  with stopping.Stopper() as stopper:
    assert signal.getsignal(signal.SIGTERM) != before
    os.kill(os.getpid(), signal.SIGTERM)
    deadline = time.monotonic() + 10
    while not stopper.requested and time.monotonic() < deadline:
      time.sleep(0.01)
  assert stopper.requested and signal.getsignal(signal.SIGTERM) == before
