"""BUILD is true to files and imports, and the order of the rooms holds."""

import ast
from collections.abc import Sequence
import graphlib
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parent
PACKAGE = 'efficientnet_advprop'
STARTER = f'{PACKAGE}/testing/run_pytest.py'

# Each room may import those of earlier lines, and no others.
ORDER = (
  {'base', 'losses'},
  {'config'},
  {'attacks', 'data', 'devices', 'execution', 'layers'},
  {'methods', 'models'},
  {'fit', 'weights'},
  {'evaluation', 'export', 'pretrained', 'training'},
  {'app'},
)
RANKS = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}

Imports = dict[str, set[str]]  # File -> files that it imports.


class Target(NamedTuple):
  kind: str
  srcs: list[str]
  deps: list[str]


class Build(NamedTuple):
  targets: dict[str, Target]
  rooms: dict[str, list[str]]
  workshops: dict[str, list[str]]


def _files() -> list[str]:
  """Python files of the project, relative to the root."""
  paths = list(ROOT.glob('*.py'))
  for folder in (PACKAGE, 'tools'):
    paths += (ROOT / folder).rglob('*.py')
  return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def _glob(
  include: list[str], exclude: Sequence[str] = (), allow_empty: bool = False
) -> list[str]:
  found = {path for pattern in include for path in ROOT.glob(pattern)}
  found -= {path for pattern in exclude for path in ROOT.glob(pattern)}
  assert found or allow_empty, f'BUILD: nothing matches {include}'
  return sorted(path.relative_to(ROOT).as_posix() for path in found)


@pytest.fixture(scope='module')
def build() -> Build:
  """BUILD, evaluated; Starlark, as it is used there, is Python."""
  targets: dict[str, Target] = {}

  def rule(kind: str) -> Any:
    def declare(name: str, srcs: list[str], deps=(), **_: Any) -> None:
      assert name not in targets, f'BUILD declares {name} twice'
      targets[name] = Target(kind, srcs, [dep.lstrip(':') for dep in deps])

    return declare

  kinds = ('filegroup', 'py_binary', 'py_library', 'py_test')
  scope = {kind: rule(kind) for kind in kinds}
  scope.update(glob=_glob, package=dict, exports_files=list)
  exec(compile((ROOT / 'BUILD').read_text(), 'BUILD', 'exec'), scope)
  del targets['settings_and_data']
  return Build(targets, scope['ROOMS'], scope['WORKSHOPS'])


def _module(path: str) -> str:
  return path[: -len('.py')].replace('/', '.').replace('.__init__', '')


@pytest.fixture(scope='module')
def imports() -> Imports:
  """For each file, the files that it imports, within functions also."""
  modules = {_module(path): path for path in _files()}
  found: Imports = {}
  for path in _files():
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
      if isinstance(node, ast.Import):
        names.update(alias.name for alias in node.names)
      elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
          inner = f'{node.module}.{alias.name}'
          names.add(inner if inner in modules else node.module)
    found[path] = {modules[name] for name in names if name in modules}
  return found


def _room(path: str) -> str:
  """The room of a file of the package: its folder, or its own name."""
  return Path(path).relative_to(PACKAGE).parts[0].removesuffix('.py')


def _is_code(path: str) -> bool:
  """Whether a file is neither a test nor what only tests need."""
  name = Path(path).name
  in_testing = path.startswith(f'{PACKAGE}/testing/')
  return not (name.endswith('_test.py') or name == 'conftest.py' or in_testing)


def _room_imports(paths: Sequence[str], imports: Imports) -> set[str]:
  """The rooms of the package that files import."""
  found = {file for path in paths for file in imports[path]}
  found = {file for file in found if file.startswith(f'{PACKAGE}/')}
  return {_room(file) for file in found}


def test_every_file_is_in_one_target(build, imports):
  wrong = []
  for path in imports:
    owners = [
      name
      for name, target in build.targets.items()
      if path in target.srcs
      and not (target.kind == 'py_test' and path == STARTER)
    ]
    kinds = [build.targets[owner].kind for owner in owners]
    is_test = path.endswith('_test.py')
    if len(owners) != 1 or (kinds == ['py_test']) != is_test:
      wrong.append(f'{path} is in {owners}')
  assert not wrong, 'BUILD:\n' + '\n'.join(wrong)


def test_every_source_exists(build):
  for name, target in build.targets.items():
    for path in target.srcs:
      assert (ROOT / path).is_file(), f'BUILD: {name} names {path}'


def test_rooms_state_their_imports(build, imports):
  wrong = []
  for room, stated in build.rooms.items():
    needed = _room_imports(build.targets[room].srcs, imports) - {room}
    if sorted(needed) != sorted(stated):
      wrong.append(f'ROOMS[{room!r}] is {sorted(needed)}')
  for workshop, stated in build.workshops.items():
    srcs = build.targets[f'tools_{workshop}'].srcs
    needed = _room_imports(srcs, imports)
    if sorted(needed) != sorted(stated):
      wrong.append(f'WORKSHOPS[{workshop!r}] is {sorted(needed)}')
  assert not wrong, 'BUILD:\n' + '\n'.join(wrong)


def test_rooms_import_earlier_rooms_only(build, imports):
  assert set(build.rooms) <= set(RANKS)
  wrong = []
  for path in filter(_is_code, imports):
    if path.startswith(f'{PACKAGE}/') and path != f'{PACKAGE}/__init__.py':
      for room in _room_imports([path], imports) - {_room(path)}:
        if RANKS.get(room, len(ORDER)) >= RANKS[_room(path)]:
          wrong.append(f'{path} may not import {room}')
  assert not wrong, '\n'.join(wrong)


def test_the_package_imports_no_tools(imports):
  for path in filter(_is_code, imports):
    if path.startswith(f'{PACKAGE}/'):
      assert not any(file.startswith('tools/') for file in imports[path]), path


def test_imports_have_no_circle(imports):
  graphlib.TopologicalSorter(imports).prepare()  # Raises on a circle.
