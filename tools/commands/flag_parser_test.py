from absl import flags
import pytest

from tools.commands import flag_parser


def _is_even(values):
  if values.count % 2:
    raise ValueError(f'--count: got {values.count}; allowed:\neven numbers')


def _parse(*argv):
  values = flags.FlagValues()
  flags.DEFINE_integer('count', 4, 'Of anything.', 1, flag_values=values)
  return flag_parser.parser('tool', values, _is_even)(['tool', *argv]), values


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
    flag_parser.fail('tool', error)
  assert stopped.value.code == 2
  assert capsys.readouterr().err.splitlines() == [line]
