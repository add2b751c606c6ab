"""Checks that every command of the documentation can be run.

Read are README.md, CONTRIBUTING.md and docs/, the headers of the recipes and
the docstrings of the programs.
"""

import ast
import re
import shlex

import pytest

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.config import recipes
from efficientnet_advprop.testing import pages

_ROOT = pages.ROOT
_RECIPES = sorted(_ROOT.glob('hparams/**/*.yaml'))
_PROGRAMS = [_ROOT / 'main.py', *sorted(_ROOT.glob('tools/*.py'))]
# The file that declares the flags, where it is not the program's own.
_FLAGS_OF = {'main.py': 'efficientnet_advprop/app/command_line.py'}


def _commands(text):
  """The Python commands in a block, each as a list of words."""
  text = re.sub(r'\\\n\s*', ' ', text)
  # srun starts the command behind it; an image of docker/ starts main.py.
  text = re.sub(r'^srun ', '', text, flags=re.M)
  text = re.sub(
    r'^docker run .* advprop:[cg]pu ',
    '.venv/bin/python main.py ',
    text,
    flags=re.M,
  )
  for line in text.splitlines():
    for part in re.split(r'&&|;|\|', line):
      if not re.search(r'\b(python[3]?|pip) ', part):
        continue
      # `<run>` is a word to be replaced; a shell would read a redirection.
      words = shlex.split(part, comments=True)
      if words and words[0].split('/')[-1] in ('python', 'python3', 'pip'):
        yield words


def _fenced_commands():
  for page in pages.CURRENT:
    for block in pages.blocks(page):
      if block.language in ('', 'sh', 'bash'):
        for words in _commands(block.text):
          yield f'{page}:{block.line}', words


def _header_commands():
  """Commands in the headers of recipes and the docstrings of programs."""
  for path in _RECIPES:
    lines = [
      line.lstrip('#')
      for line in path.read_text().splitlines()
      if line.startswith('#')
    ]
    for words in _commands(_indented('\n'.join(lines), 3)):
      yield path.relative_to(_ROOT).as_posix(), words
  for path in _PROGRAMS:
    text = ast.get_docstring(ast.parse(path.read_text())) or ''
    for words in _commands(_indented(text, 2)):
      yield path.relative_to(_ROOT).as_posix(), words


def _indented(text, spaces):
  """The lines of `text` that are indented by `spaces` and more."""
  lines = [line for line in text.splitlines() if line.startswith(' ' * spaces)]
  return '\n'.join(lines)


def _flags(program):
  """The names of the flags that a program's file declares."""
  path = _ROOT / _FLAGS_OF.get(program, program)
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.For):
      body = ast.unparse(node.body)
      if 'DEFINE_' in body and isinstance(node.iter, ast.Tuple):
        names.update(ast.literal_eval(row.elts[0]) for row in node.iter.elts)
    elif isinstance(node, ast.Call) and node.args:
      called = ast.unparse(node.func)
      name = node.args[0]
      if re.search(r'DEFINE_|\bdefine', called) and isinstance(
        name, ast.Constant
      ):
        names.add(name.value)
  return names


def _is_open(value):
  """Whether a value is for the reader to fill in."""
  return '<' in value or '...' in value or '$' in value


def _check_command(words):
  """Raises AssertionError or ConfigError if a command cannot be run."""
  program = words[0].split('/')[-1]
  if program == 'pip' or words[1:3] == ['-m', 'pip']:
    for name in re.findall(r'-r (\S+)', ' '.join(words)):
      assert (_ROOT / name).exists() or name == 'requirements-tpu.txt', name
    return
  if words[1] == '-m':
    paths = [word for word in words[3:] if re.search(r'\w/\w|\.py\b', word)]
    for path in paths if words[2] == 'pytest' else ():
      name, _, test = path.partition('::')
      assert (_ROOT / name).exists(), path
      assert f'def {test}' in ((_ROOT / name).read_text() if test else 'def ')
    return
  if words[1] == '-c':
    return
  assert (_ROOT / words[1]).exists(), f'{words[1]} is not there'
  values = {}
  known = _flags(words[1])
  for word in words[2:]:
    match = re.fullmatch(r'--([a-z0-9_]+)(?:=(.*))?', word)
    assert match, f'{word!r} is no flag with its value'
    name, value = match.groups()
    assert name in known, f'{words[1]} has no flag --{name}'
    values[name] = value
    if value and re.match(r'(hparams|tools|testdata)/', value):
      assert _is_open(value) or (_ROOT / value).exists(), value
  _check_settings(values)


def _check_settings(flags):
  """Builds the run that a command names, as far as it can be known."""
  path = flags.get('config_file')
  name = flags.get('model_name')
  run = {}
  if path and not _is_open(path) and (_ROOT / path).exists():
    run = recipes.read_yaml(str(_ROOT / path))
  elif name in config_lib.MODEL_NAMES:
    run = recipes.read_yaml(str(_ROOT / f'hparams/imagenet/{name}.yaml'))
  overrides = recipes.parse_overrides(flags.get('params_override') or '')
  if name and 'mode' in flags:
    config_lib.check_choice('model_name', name, config_lib.MODEL_NAMES)
    overrides = (f'model.name={name}', *overrides)
  config_lib.from_dict(recipes.apply_overrides(run, overrides))


def _failures(commands):
  for where, words in commands:
    try:
      _check_command(words)
    except (AssertionError, ValueError) as error:
      first = str(error).splitlines()[0]
      yield f'{where}: {" ".join(words):.100}: {first}'


def test_every_command_of_the_pages_can_be_run():
  commands = list(_fenced_commands())
  assert len(commands) > 30
  pages.tell(_failures(commands))


def test_every_command_of_recipes_and_programs_can_be_run():
  commands = list(_header_commands())
  assert len(commands) > 100
  pages.tell(_failures(commands))


@pytest.mark.parametrize(
  'line',
  [
    'python main.py --mod=train',
    'python main.py --config_file=hparams/absent.yaml',
    'python main.py --params_override=train.epoch=3',
    'python main.py --params_override=train.epochs=-3',
    'python main.py --mode=train --model_name=efficientnet-b9',
    'python tools/absent.py',
    'python tools/soak.py --kill=3',
    'python -m pytest absent_test.py',
    'pip install -r requirements-absent.txt',
    'srun .venv/bin/python main.py --mod=train',
    'docker run --rm --gpus=all advprop:gpu --mod=train',
  ],
)
def test_a_wrong_command_is_noticed(line):
  (words,) = _commands(line)
  assert list(_failures([('here', words)]))


def test_the_page_of_training_lists_every_flag():
  page = pages.text('docs/training.md')
  missing = [f for f in _flags('main.py') if f'`--{f}`' not in page]
  assert not missing


def test_the_quick_start_begins_with_its_two_commands():
  """.ci/run takes the two commands from there."""
  blocks = [
    b for b in pages.blocks('README.md') if b.heading == '## Quick start'
  ]
  commands = [b for b in blocks if b.language in ('', 'sh')]
  assert blocks[:2] == commands, 'exactly two, before everything else'
  first, second = (block.text for block in commands)
  assert 'main.py --config_file=hparams/demo.yaml' in first
  assert '-m pytest' in second
  for text in (first, second):
    assert text.startswith('python3 -m venv .venv && .venv/bin/pip install')
    assert text.count('\n') == 1


def test_shown_commands_use_the_environment_of_the_quick_start():
  """On a TPU VM, the image's own Python is the right one."""
  for where, words in _fenced_commands():
    is_set_up = words[1:3] == ['-m', 'venv'] or where.startswith('docs/tpu.md')
    assert words[0].startswith('.venv') or is_set_up, f'{where}: {words}'
