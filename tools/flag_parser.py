"""How the tools read their flags: a wrong one ends in one line, exit code 2."""

from collections.abc import Sequence
import sys
from typing import Callable

from absl import flags

_USER_ERROR = 2


def parser(
  program: str, values: flags.FlagValues, takes_arguments: bool = True
) -> Callable[[Sequence[str]], list[str]]:
  """A `flags_parser` for `app.run`.

  Args:
    program: its name, in front of the line.
    values: the flags that it defines.
    takes_arguments: whether anything may stand beside the flags.

  Returns:
    A function from the command line to what is left of it. A wrong flag ends
    the program.
  """

  def parse(argv: Sequence[str]) -> list[str]:
    try:
      rest = values(argv)
      if len(rest) > 1 and not takes_arguments:
        raise flags.Error(f'{rest[1]!r} is not a flag; see --help')
      return rest
    except flags.Error as error:
      print(f'{program}:', ' '.join(str(error).split()), file=sys.stderr)
      sys.exit(_USER_ERROR)

  return parse
