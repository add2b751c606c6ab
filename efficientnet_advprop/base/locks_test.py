import os
import signal
import socket
import subprocess
import sys

import pytest

from efficientnet_advprop.base import errors
from efficientnet_advprop.base import locks

_HOLD = (
  'import sys, time\n'
  'from efficientnet_advprop.base import locks\n'
  'with locks.locked(sys.argv[1]):\n'
  "  print('held', flush=True)\n"
  '  time.sleep(60)\n'
)


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
  command = [sys.executable, '-c', _HOLD, str(tmp_path)]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
    try:
      assert first.stdout is not None and first.stdout.readline() == 'held\n'
      second = locks.locked(str(tmp_path), 'give another --model_dir')
      with pytest.raises(errors.LockedError) as caught:
        second.__enter__()
    finally:
      first.send_signal(signal.SIGKILL)
  message = str(caught.value)
  assert f'process {first.pid} on {socket.gethostname()}' in message
  assert message.startswith(f'{tmp_path}: ')
  assert message.endswith('; give another --model_dir')
  with locks.locked(str(tmp_path)):
    assert str(os.getpid()) in (tmp_path / locks.FILE).read_text()
  assert not (tmp_path / locks.FILE).read_text()


def test_a_bucket_names_who_writes_there(tmp_path, caplog):
  path = str(tmp_path / locks.FILE)
  with locks._announced(path):
    assert f'"process": {os.getpid()}' in (tmp_path / locks.FILE).read_text()
    with caplog.at_level('WARNING', 'absl'), locks._announced(path):
      pass
  assert f'process {os.getpid()} on' in caplog.text
  assert not os.path.exists(path)
