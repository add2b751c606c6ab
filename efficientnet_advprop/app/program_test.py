import logging as python_logging
import os
import re
import subprocess
import sys
import threading

from absl import flags
import pytest

from efficientnet_advprop.app import program
from efficientnet_advprop.base import disposal


def _is_even(values):
  if values.count % 2:
    raise ValueError(f'--count: got {values.count}; allowed:\neven numbers')


def _parse(*argv):
  values = flags.FlagValues()
  flags.DEFINE_integer('count', 4, 'Of anything.', 1, flag_values=values)
  return program.parser('tool', values, _is_even, 'Counts.')(
    ['tool', *argv]
  ), values


def test_flags_are_read():
  rest, values = _parse('--count=2')
  assert rest == ['tool'] and values.count == 2


@pytest.mark.parametrize(
  'argv', ['--count=0', '--cuont=2', 'more', '--count=3']
)
def test_a_wrong_flag_ends_in_one_line(capsys, argv):
  with pytest.raises(SystemExit) as stopped:
    _parse(argv)
  (line,) = capsys.readouterr().err.splitlines()
  assert stopped.value.code == 2 and line.startswith('tool: ')


@pytest.mark.parametrize(
  'error, line',
  [
    (ValueError('more\nlines'), 'tool: more lines'),
    (FileNotFoundError(2, 'No such file', 'a/b'), 'tool: a/b: No such file'),
    (OSError(28, 'No space left'), 'tool: file system: No space left'),
    (OSError('said by a library'), 'tool: said by a library'),
  ],
)
def test_an_error_ends_in_one_line(capsys, error, line):
  with pytest.raises(SystemExit) as stopped:
    program.fail('tool', error)
  assert stopped.value.code == 2
  assert capsys.readouterr().err.splitlines() == [line]


def test_an_error_leaves_the_process_to_its_caller(capsys):
  """Also while an iterator of an earlier run is being freed."""
  freed = threading.Event()

  class Held:
    def __del__(self):
      freed.wait()

  with disposal.disposing(Held()):
    pass
  with pytest.raises(SystemExit):
    program.fail('tool', ValueError('wrong'))
  freed.set()
  disposal.wait()
  assert capsys.readouterr().err == 'tool: wrong\n'


@pytest.mark.parametrize('flag', ['-h', '--help'])
def test_help_shows_the_flags(capsys, flag):
  with pytest.raises(SystemExit) as stopped:
    _parse('--count=2', flag)
  shown = capsys.readouterr().out
  assert stopped.value.code == 0
  assert shown == (
    'Counts.\n\nFlags:\n  --count=<int>\n      Of anything. Default: 4.\n'
  )


def test_log_lines_are_plain():
  formatter = program._PlainFormatter()
  for level, text in (('INFO', 'half'), ('WARNING', 'warning: half')):
    number = getattr(python_logging, level)
    record = python_logging.LogRecord('absl', number, 'x', 1, 'half', (), None)
    assert re.fullmatch(rf'\d\d:\d\d:\d\d  {text}', formatter.format(record))


def _run(code):
  command = [sys.executable, '-c', code]
  return subprocess.run(
    command, capture_output=True, text=True, check=False, timeout=120
  )


def test_tensorflow_logs_a_line_once():
  code = (
    'from absl import flags\n'
    'import tensorflow as tf\n'
    'from efficientnet_advprop.app import program\n'
    'def main(argv):\n'
    "  tf.get_logger().warning('one replica')\n"
    "program.run('tool', main, flags.FLAGS)\n"
  )
  done = _run(code)
  lines = [line for line in done.stderr.splitlines() if 'one replica' in line]
  assert [line.split('  ', 1)[1] for line in lines] == ['warning: one replica']


def test_a_user_error_ends_the_command_in_one_line():
  code = (
    'from absl import flags\n'
    'from efficientnet_advprop.app import program\n'
    'from efficientnet_advprop.base import errors\n'
    'def main(argv):\n'
    "  raise errors.DataError('x: cut short')\n"
    "program.run('tool', main, flags.FLAGS)\n"
  )
  done = _run(code)
  assert done.returncode == 2
  assert done.stderr.splitlines()[-1] == 'tool: x: cut short'
  assert 'Traceback' not in done.stderr


def test_a_user_error_does_not_wait_for_what_is_being_freed():
  code = (
    'import threading\n'
    'from absl import flags\n'
    'from efficientnet_advprop.app import program\n'
    'from efficientnet_advprop.base import disposal, errors\n'
    'class Endless:\n'
    '  def __del__(self):\n'
    '    threading.Event().wait()\n'
    'def main(argv):\n'
    '  with disposal.disposing(Endless()):\n'
    "    raise errors.DataError('x: cut short')\n"
    "program.run('tool', main, flags.FLAGS)\n"
  )
  done = _run(code)
  assert done.returncode == 2
  assert done.stderr.splitlines()[-1] == 'tool: x: cut short'


@pytest.mark.parametrize(
  'lines, ending, code, told',
  [
    (1, 'return', 141, []),
    (100_000, 'return', 141, []),
    (1, "raise errors.DataError('x: cut short')", 2, ['tool: x: cut short']),
  ],
)
def test_a_reader_that_has_read_enough_ends_no_command_in_a_traceback(
  lines, ending, code, told
):
  """As `head` does: before the first line, and in the midst of them."""
  main = (
    'import sys\n'
    'from absl import flags\n'
    'from efficientnet_advprop.app import program\n'
    'from efficientnet_advprop.base import errors\n'
    'def main(argv):\n'
    '  sys.stdin.read()\n'
    f"  print('line\\n' * {lines})\n"
    f'  {ending}\n'
    "program.run('tool', main, flags.FLAGS)\n"
  )
  process = subprocess.Popen(
    [sys.executable, '-c', main],
    env={**os.environ, 'PYTHONUNBUFFERED': ''},  # The line is still to go out.
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  process.stdout.close()
  process.stdin.close()
  with process.stderr as log:
    assert log.read().splitlines() == told
  assert process.wait() == code
