"""The project's pages of documentation, as tests read them."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Optional, Union

ROOT = Path(__file__).parents[2]
ALL = sorted(
  path.relative_to(ROOT).as_posix()
  for path in (*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md'))
)
CURRENT = [page for page in ALL if page != 'CHANGELOG.md']

_Page = Union[str, Path]


class Block(NamedTuple):
  """A fenced block of a page."""

  page: _Page
  line: int  # That of its opening fence, from 1.
  language: str
  text: str
  heading: str


def blocks(page: _Page) -> list[Block]:
  """The fenced blocks of a page."""
  result: list[Block] = []
  opened: Optional[tuple[int, str, list[str]]] = None
  heading = ''
  for number, line in enumerate(text(page).splitlines(), 1):
    if not line.startswith('```'):
      if opened:
        opened[2].append(line)
      elif line.startswith('#'):
        heading = line
    elif opened:
      start, language, lines = opened
      inside = '\n'.join(lines) + '\n'
      result.append(Block(page, start, language, inside, heading))
      opened = None
    else:
      opened = number, line[3:].strip(), []
  assert opened is None, f'{page}: the block of line {opened[0]} has no end'
  return result


def text(page: _Page) -> str:
  """The whole page."""
  return (ROOT / page).read_text(encoding='utf-8')


def prose(page: _Page) -> Iterator[tuple[int, str]]:
  """The lines of a page with their numbers, without fenced blocks."""
  inside = False
  for number, line in enumerate(text(page).splitlines(), 1):
    if line.startswith('```'):
      inside = not inside
    elif not inside:
      yield number, line


def tell(failures: Iterable[str]) -> None:
  """Fails with one line for each failure, if there are any."""
  lines = list(failures)
  assert not lines, '\n' + '\n'.join(lines)
