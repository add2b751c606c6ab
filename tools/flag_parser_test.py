from absl import flags
import pytest

from tools import flag_parser


def _parse(*argv, **settings):
  values = flags.FlagValues()
  flags.DEFINE_integer('count', 3, 'Of anything.', 1, flag_values=values)
  parse = flag_parser.parser('tool', values, **settings)
  return parse(['tool', *argv]), values


def test_flags_are_read_and_the_rest_is_returned():
  rest, values = _parse('--count=2', 'more')
  assert rest == ['tool', 'more'] and values.count == 2


@pytest.mark.parametrize('argv', ['--count=0', '--cuont=2', 'more'])
def test_a_wrong_flag_ends_in_one_line(capsys, argv):
  with pytest.raises(SystemExit) as stopped:
    _parse(argv, takes_arguments=False)
  (line,) = capsys.readouterr().err.splitlines()
  assert stopped.value.code == 2 and line.startswith('tool: ')
