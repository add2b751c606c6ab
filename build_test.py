"""BUILD tells the truth about files and imports, and the arrows hold."""

import ast
from collections.abc import Sequence
import graphlib
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parent
STARTER = 'tools/pytest_main.py'
SURFACE = 'efficientnet_advprop'

# Which packages each package may import; DESIGN of the house, top to bottom.
_BASE = {'config', 'randomness'}
ARROWS = {
  'config': set(),
  'randomness': set(),
  'attacks': _BASE,
  'checkpoints': _BASE,
  'models': _BASE,
  'data': _BASE,
  'evaluation': _BASE | {'attacks', 'data', 'models'},
  'export': _BASE | {'checkpoints', 'data', 'models'},
  'training': _BASE
  | {'attacks', 'checkpoints', 'data', 'evaluation', 'models'},
  'evaluating': _BASE
  | {'checkpoints', 'data', 'evaluation', 'export', 'models', 'training'},
  'modes': _BASE
  | {'checkpoints', 'data', 'evaluating', 'evaluation', 'export', 'models'}
  | {'training'},
  SURFACE: _BASE | {'attacks', 'checkpoints', 'models'},
}


Imports = dict[str, set[str]]  # File -> files that it imports.


class Target(NamedTuple):
  kind: str
  srcs: list[str]
  deps: list[str]


def _files() -> list[str]:
  """Python files of the project, relative to the root."""
  paths = list(ROOT.glob('*.py'))
  for folder in ('efficientnet_advprop', 'tools'):
    paths += (ROOT / folder).rglob('*.py')
  return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def _glob(include: list[str], exclude: Sequence[str] = ()) -> list[str]:
  found = {path for pattern in include for path in ROOT.glob(pattern)}
  found -= {path for pattern in exclude for path in ROOT.glob(pattern)}
  return sorted(path.relative_to(ROOT).as_posix() for path in found)


@pytest.fixture(scope='module')
def targets() -> dict[str, Target]:
  """Targets of BUILD by name; Starlark, as it is used there, is Python."""
  result: dict[str, Target] = {}

  def rule(kind: str) -> Any:
    def declare(name: str, srcs: list[str], deps=(), **_: Any) -> None:
      assert name not in result, f'BUILD declares {name} twice'
      result[name] = Target(kind, srcs, [dep.lstrip(':') for dep in deps])

    return declare

  kinds = ('filegroup', 'py_binary', 'py_library', 'py_test')
  scope = {kind: rule(kind) for kind in kinds}
  scope.update(glob=_glob, package=dict, exports_files=list)
  exec(compile((ROOT / 'BUILD').read_text(), 'BUILD', 'exec'), scope)
  del result['settings_and_data']
  return result


def _module(path: str) -> str:
  return path[: -len('.py')].replace('/', '.').replace('.__init__', '')


def _imports(path: str, modules: dict[str, str]) -> set[str]:
  """Files of the project that a file imports, within functions also."""
  names = set()
  for node in ast.walk(ast.parse((ROOT / path).read_text())):
    if isinstance(node, ast.Import):
      names.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      for alias in node.names:
        inner = f'{node.module}.{alias.name}'
        names.add(inner if inner in modules else node.module)
  found = {modules[name] for name in names if name in modules}
  if path.endswith('_test.py'):  # pytest imports conftest.py by itself.
    folders = Path(path).parents
    found |= {(folder / 'conftest.py').as_posix() for folder in folders}
  return found & set(modules.values())


@pytest.fixture(scope='module')
def imports() -> Imports:
  modules = {_module(path): path for path in _files()}
  return {path: _imports(path, modules) for path in _files()}


def _owners(targets: dict[str, Target], path: str) -> list[str]:
  """The targets that hold a file, tests' common starter aside."""
  return [
    name
    for name, target in targets.items()
    if path in target.srcs
    and not (target.kind == 'py_test' and path == STARTER)
  ]


def _needed(
  name: str, srcs: list[str], targets: dict[str, Target], imports: Imports
) -> list[str]:
  """The targets whose files `srcs` import."""
  imported = {file for path in srcs for file in imports.get(path, ())}
  owners = {owner for file in imported for owner in _owners(targets, file)}
  return sorted(owners - {name})


def test_every_file_is_in_one_target(targets, imports):
  wrong = []
  for path in imports:
    owners = _owners(targets, path)
    kinds = [targets[owner].kind for owner in owners]
    is_test = path.endswith('_test.py')
    if len(owners) != 1 or (kinds == ['py_test']) != is_test:
      deps = [f':{dep}' for dep in _needed('', [path], targets, imports)]
      wrong.append(f'{path} is in {owners}; it imports from {deps}')
  assert not wrong, 'BUILD:\n' + '\n'.join(wrong)


def test_every_source_exists(targets):
  for name, target in targets.items():
    for path in target.srcs:
      assert (ROOT / path).is_file(), f'BUILD: {name} names {path}'


def test_dependencies_are_the_imports(targets, imports):
  wrong = []
  for name, target in targets.items():
    needed = _needed(name, target.srcs, targets, imports)
    if target.kind in ('py_binary', 'py_test'):
      needed = sorted({*needed, SURFACE})  # It runs before all; see BUILD.
    if needed != sorted(target.deps):
      wrong.append(f'{name}: deps are {[f":{dep}" for dep in needed]}')
  assert not wrong, 'BUILD:\n' + '\n'.join(wrong)


def test_arrows_point_one_way(targets, imports):
  for name, allowed in ARROWS.items():
    beyond = set(targets[name].deps) - allowed
    assert not beyond, f'{name} may not import {sorted(beyond)}'
  graphlib.TopologicalSorter(imports).prepare()  # Raises on a circle.
