"""How every command starts and ends: flags, log, errors in one line."""

from collections.abc import Sequence
import logging as python_logging
import os
import sys
import textwrap
from typing import Callable, NoReturn, Optional

from absl import app
from absl import flags
from absl import logging

from efficientnet_advprop.base import disposal
from efficientnet_advprop.base import errors

_HELP = ('-h', '-help', '--help')


def flag_values(module_name: str) -> flags.FlagValues:
  """Returns the place where a command declares its flags.

  Flag names repeat across commands, so only the running command registers its
  own globally.

  Args:
    module_name: `__name__` of the command.
  """
  return flags.FLAGS if module_name == '__main__' else flags.FlagValues()


def run(
  name: str,
  main: Callable[[Sequence[str]], Optional[int]],
  values: flags.FlagValues,
  check: Optional[Callable[[flags.FlagValues], None]] = None,
  description: str = '',
) -> NoReturn:
  """Runs a command and ends the process with its exit code.

  An error that the user can fix ends in one line and exit code 2.

  Args:
    name: of the command, in front of an error's line.
    main: takes the command line without flags; returns the exit code, or None
      for 0.
    values: the flags that the command declares.
    check: raises ValueError or flags.Error if flags do not go together.
    description: what `--help` says above the flags: the command's docstring.
  """

  def guarded(argv: Sequence[str]) -> int:
    set_up_log()
    try:
      code = main(argv) or 0
    except BrokenPipeError:
      code = errors.EXIT_UNREAD
    except (errors.UserError, OSError) as error:
      _tell(name, error)
      code = errors.EXIT_USER_ERROR
    if not _write():
      code = code or errors.EXIT_UNREAD
    disposal.end_process(code)
    return code

  app.run(guarded, flags_parser=parser(name, values, check, description))


def parser(
  program: str,
  values: flags.FlagValues,
  check: Optional[Callable[[flags.FlagValues], None]] = None,
  description: str = '',
) -> Callable[[Sequence[str]], list[str]]:
  """Returns a `flags_parser` for `app.run`.

  A wrong flag, or anything that is not a flag, ends the process with one line
  and exit code 2; `-h` and `--help` show the flags and end it with 0.

  Args:
    program: its name, in front of the line.
    values: the flags that it declares.
    check: raises ValueError or flags.Error if flags do not go together.
    description: what `--help` says above the flags.
  """

  def parse(argv: Sequence[str]) -> list[str]:
    if any(word in _HELP for word in argv[1:]):
      text = help_text(values, description)
      sys.exit(0 if _write(text + '\n') else errors.EXIT_UNREAD)
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


def help_text(values: flags.FlagValues, description: str) -> str:
  """Returns a description and the flags that this project declares.

  Args:
    values: flags; those of libraries are left out.
    description: what the command does. Empty: the docstring of its file.
  """
  text = description or sys.modules['__main__'].__doc__ or ''
  lines = [text.strip(), '', 'Flags:']
  for module, found in sorted(values.flags_by_module_dict().items()):
    # The running file's flags go by its path.
    if not module.startswith((sys.argv[0], 'efficientnet_advprop.', 'tools.')):
      continue
    for flag in found:
      kind = '' if flag.boolean else f'=<{flag.flag_type()}>'
      lines.append(f'  --{flag.name}{kind}')
      meaning = ' '.join((flag.help or '').split())
      if flag.default not in (None, ''):
        meaning += f' Default: {flag.default}.'
      lines += textwrap.wrap(
        meaning,
        78,
        initial_indent=' ' * 6,
        subsequent_indent=' ' * 6,
        break_on_hyphens=False,
      )
  return '\n'.join(lines)


def set_up_log() -> None:
  """Makes log lines plain: time and text; warnings say that they are."""
  logging.set_verbosity(logging.INFO)
  logging.get_absl_handler().setFormatter(_PlainFormatter())
  # TensorFlow's own handler would print its lines a second time.
  python_logging.getLogger('tensorflow').handlers.clear()


class _PlainFormatter(python_logging.Formatter):
  """Formats a record as `12:34:56  text`."""

  def format(self, record: python_logging.LogRecord) -> str:
    time = self.formatTime(record, '%H:%M:%S')
    is_note = record.levelno < python_logging.WARNING
    level = '' if is_note else f'{record.levelname.lower()}: '
    return f'{time}  {level}{record.getMessage()}'


def fail(program: str, error: BaseException) -> NoReturn:
  """Raises SystemExit with a user error's exit code, after its one line."""
  _tell(program, error)
  sys.exit(errors.EXIT_USER_ERROR)


def _tell(program: str, error: BaseException) -> None:
  _write()
  print(f'{program}: {one_line(error)}', file=sys.stderr)


def _write(text: str = '') -> bool:
  """Writes a text behind what stdout holds; returns whether it is read."""
  try:
    print(text, end='', flush=True)
  except BrokenPipeError:  # What reads it, such as `head`, has ended.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return False
  return True


def one_line(error: BaseException) -> str:
  """Returns an error's message as one line; a system error names its file."""
  if isinstance(error, OSError) and error.strerror:
    return f'{error.filename or "file system"}: {error.strerror}'
  return ' '.join(str(error).split())
