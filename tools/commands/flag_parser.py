"""How tools read their flags; what is wrong ends in one line, exit code 2."""

from collections.abc import Sequence
import sys
from typing import Callable, NoReturn, Optional

from absl import flags

from efficientnet_advprop.base import errors


def parser(
  program: str,
  values: flags.FlagValues,
  check: Optional[Callable[[flags.FlagValues], None]] = None,
) -> Callable[[Sequence[str]], list[str]]:
  """A `flags_parser` for `app.run`.

  Args:
    program: its name, in front of the line.
    values: the flags that it defines.
    check: raises ValueError or flags.Error if flags do not go together.

  Returns:
    A function from the command line to what is left of it: the program. A
    wrong flag, or anything beside the flags, ends the program.
  """

  def parse(argv: Sequence[str]) -> list[str]:
    try:
      rest = values(argv)
      if len(rest) > 1:
        raise flags.Error(f'{rest[1]!r} is not a flag; see --help')
      if check is not None:
        check(values)
    except (flags.Error, ValueError) as error:
      fail(program, error)
    return rest

  return parse


def fail(program: str, error: Exception) -> NoReturn:
  """Ends the program with one line and the exit code of a user's error."""
  sys.stdout.flush()
  if isinstance(error, OSError) and error.strerror:
    problem = f'{error.filename or "file system"}: {error.strerror}'
  else:
    problem = ' '.join(str(error).split())
  print(f'{program}: {problem}', file=sys.stderr)
  sys.exit(errors.EXIT_USER_ERROR)
