"""Holds what the commands of tools/ have in common."""

import ast
import importlib
from pathlib import Path

import pytest

from efficientnet_advprop.app import program

_DOORS = sorted(
  path
  for path in Path(__file__).parent.glob('*.py')
  if not path.name.endswith('_test.py')
)
_NAMES = [path.stem for path in _DOORS]
_PATH = 'sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))'
_MOST_LINES = 110


@pytest.mark.parametrize('door', _DOORS, ids=_NAMES)
def test_a_door_holds_flags_and_main(door):
  """What a command does is in a folder, where others can import it."""
  text = door.read_text()
  assert len(text.splitlines()) <= _MOST_LINES
  assert _PATH in text.splitlines()
  assert f"  program.run('{door.stem}', main, _FLAGS" in text
  for word in ('app.run', 'program.parser', 'program.fail', 'import app\n'):
    assert word not in text, word
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.ImportFrom) and node.module == 'tools':
      pytest.fail(f'imports the door {node.names[0].name}')


@pytest.mark.parametrize('door', _NAMES)
def test_help_shows_the_docstring_and_every_flag(door, capsys):
  module = importlib.import_module(f'tools.{door}')
  values = module._FLAGS
  parse = program.parser(door, values, None, module.__doc__)
  with pytest.raises(SystemExit) as stopped:
    parse([door, '--help'])
  shown = capsys.readouterr().out
  assert not stopped.value.code
  assert module.__doc__.strip() in shown
  assert f'.venv/bin/python tools/{door}.py' in shown
  for name in values:
    assert f'--{name}' in shown
