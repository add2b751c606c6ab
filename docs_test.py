"""Checks that the documents agree with the code: commands, keys, paths, links.

Read are README.md, CONTRIBUTING.md, CHANGELOG.md and docs/, the headers of the
recipes and the docstrings of the programs.
"""

import ast
import dataclasses
import importlib
import json
from pathlib import Path
import re
import shlex
import typing
from typing import NamedTuple

import pytest
import tensorflow as tf
import yaml

import efficientnet_advprop as advprop
from efficientnet_advprop import config as config_lib
from efficientnet_advprop import pretrained
from efficientnet_advprop.config import fields
from efficientnet_advprop.config import recipes
from tools.documents import settings as settings_page

_ROOT = Path(__file__).parent
_PAGES = sorted(
  path.relative_to(_ROOT).as_posix()
  for path in (*_ROOT.glob('*.md'), *_ROOT.glob('docs/**/*.md'))
)
_CURRENT_PAGES = [page for page in _PAGES if page != 'CHANGELOG.md']
_RECIPES = sorted(_ROOT.glob('hparams/**/*.yaml'))
_PROGRAMS = [_ROOT / 'main.py', *sorted(_ROOT.glob('tools/*.py'))]
# The file that declares the flags, where it is not the program's own.
_FLAGS_OF = {'main.py': 'efficientnet_advprop/app/command_line.py'}
_PYTHONS = ('.venv/bin/python', '.venv-newer/bin/python', 'python3', 'python')
_SECTIONS = [f.name for f in dataclasses.fields(config_lib.Config)]
# What looks like a key of a section and is a file, or a method of Keras.
_NO_KEYS = {
  *('attack.png', 'eval.json', 'model.ckpt', 'model.h5', 'model.keras'),
  *('model.onnx', 'model.tflite', 'model.fit', 'model.save', 'data.zip'),
}


class Block(NamedTuple):
  """A fenced block of a page."""

  page: str
  line: int  # That of its opening fence, from 1.
  language: str
  text: str
  heading: str


def _blocks(page):
  result, opened, heading = [], None, ''
  for number, line in enumerate(_text(page).splitlines(), 1):
    if not line.startswith('```'):
      if opened:
        opened[2].append(line)
      elif line.startswith('#'):
        heading = line
    elif opened:
      start, language, lines = opened
      text = '\n'.join(lines) + '\n'
      result.append(Block(page, start, language, text, heading))
      opened = None
    else:
      opened = number, line[3:].strip(), []
  assert not opened, f'{page}: the block of line {opened[0]} has no end'
  return result


def _text(page):
  return (_ROOT / page).read_text(encoding='utf-8')


def _prose(page):
  """The lines of a page with their numbers, without fenced blocks."""
  inside = False
  for number, line in enumerate(_text(page).splitlines(), 1):
    if line.startswith('```'):
      inside = not inside
    elif not inside:
      yield number, line


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
  for page in _CURRENT_PAGES:
    for block in _blocks(page):
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


def _tell(failures):
  assert not failures, '\n' + '\n'.join(failures)


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
  _tell(list(_failures(commands)))


def test_every_command_of_recipes_and_programs_can_be_run():
  commands = list(_header_commands())
  assert len(commands) > 100
  _tell(list(_failures(commands)))


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


def _rows(page):
  """Rows of tables: line number, cells, whether it begins a table."""
  before = None
  for number, line in _prose(page):
    if not line.startswith('|'):
      before = None
      continue
    bare = re.sub(r'`[^`]*`', 'x', line.strip()).replace(r'\|', 'x')
    yield number, len(bare.strip('|').split('|')), before is None
    before = number


@pytest.mark.parametrize('page', _PAGES)
def test_rows_of_a_table_have_as_many_cells_as_its_header(page):
  header, failures = 0, []
  for number, cells, begins in _rows(page):
    header = cells if begins else header
    if cells != header:
      failures.append(f'{page}:{number}: {cells} cells under {header}')
  _tell(failures)


def _anchors(page):
  """The anchors that GitHub gives the headings of a page."""
  headings = [line for _, line in _prose(page) if re.match(r'#+ ', line)]
  plain = [re.sub(r'[^\w\- ]', '', h.lstrip('# ').lower()) for h in headings]
  return {heading.replace(' ', '-') for heading in plain}


@pytest.mark.parametrize('page', _PAGES)
def test_every_relative_link_resolves(page):
  failures = []
  text = '\n'.join(line for _, line in _prose(page))
  for target in re.findall(r'\]\(([^)\s]+)\)', text):
    if re.match(r'https?:|mailto:', target):
      continue
    path, _, anchor = target.partition('#')
    found = (_ROOT / page).parent / path if path else _ROOT / page
    if not found.exists():
      failures.append(f'{page}: {target}: no such file')
    elif anchor and anchor not in _anchors(found.relative_to(_ROOT)):
      failures.append(f'{page}: {target}: no such heading')
  _tell(failures)


def _quoted(page):
  """What stands in backticks, with the numbers of the lines."""
  for number, line in _prose(page):
    for quoted in re.findall(r'`([^`]+)`', line):
      yield number, quoted


def _is_missing(quoted):
  """Whether a quoted path of the project is not there."""
  path = quoted.split('::')[0].split(':')[0]
  top = path.split('/')[0]
  if re.search(r'[<>\s…{}()=]|\.\.\.', path):
    return False
  folders = [p.name for p in _ROOT.iterdir() if p.is_dir()]
  is_ours = '/' in path and top in folders and top != 'runs'
  if is_ours or re.fullmatch(r'requirements[\w*-]*\.txt|[A-Z]+\.md', path):
    return not list(_ROOT.glob(path.rstrip('/')))
  if path.endswith('.py'):
    return not [*_ROOT.glob(path), *_ROOT.glob(f'[et]*/**/{path}')]
  return False


@pytest.mark.parametrize('page', _CURRENT_PAGES)
def test_every_quoted_path_exists(page):
  _tell(
    [
      f'{page}:{number}: `{quoted}` is not there'
      for number, quoted in _quoted(page)
      if _is_missing(quoted)
    ]
  )


def test_a_missing_path_is_noticed():
  assert _is_missing('efficientnet_advprop/absent.py')
  assert _is_missing('absent.py') and _is_missing('tools/absent')
  assert not _is_missing('docs_test.py') and not _is_missing('<run>/x.py')


def _unknown_key(quoted):
  """Whether a quoted `section.key` is none of the settings."""
  match = re.fullmatch(rf'({"|".join(_SECTIONS)})((\.[\w<>*]+)+)(=.*)?', quoted)
  if not match or quoted.split('=')[0] in _NO_KEYS:
    return False
  hint = config_lib.Config
  for name in f'{match[1]}{match[2]}'.split('.'):
    if name == '*':
      return False
    if not dataclasses.is_dataclass(hint):
      # A mapping from names that the user chooses.
      hint = hint.__args__[1] if hasattr(hint, '__args__') else None
      if hint is None:
        return True
      continue
    hints = typing.get_type_hints(hint)
    if name not in hints:
      return True
    hint, _ = fields.strip_optional(hints[name])
  return False


@pytest.mark.parametrize('page', _CURRENT_PAGES)
def test_every_quoted_setting_exists(page):
  _tell(
    [
      f'{page}:{number}: `{quoted}` is no setting'
      for number, quoted in _quoted(page)
      if _unknown_key(quoted)
    ]
  )


def test_an_unknown_setting_is_noticed():
  assert _unknown_key('train.epoch') and _unknown_key('train.seed.more')
  assert _unknown_key('eval.tests.x.absent')
  assert not _unknown_key('eval.tests.<name>.attack.epsilon')
  assert not _unknown_key('train.epochs=3')


@pytest.mark.parametrize('page', _CURRENT_PAGES)
def test_yaml_json_and_python_blocks_are_valid(page):
  for block in _blocks(page):
    where = f'{page}:{block.line}'
    if block.language == 'yaml':
      values = yaml.safe_load(block.text)
      if set(values) <= set(_SECTIONS):
        config_lib.from_dict(values)
    elif block.language == 'json':
      json.loads(block.text)
    elif block.language == 'python':
      compile(block.text, where, 'exec')
      for name in re.findall(r'\badvprop\.(\w+)', block.text):
        assert hasattr(advprop, name), f'{where}: advprop.{name}'


@pytest.mark.parametrize('page', _CURRENT_PAGES)
def test_dotted_names_of_the_package_exist(page):
  for number, quoted in _quoted(page):
    name = quoted.split('(')[0]
    if re.fullmatch(r'advprop\.\w+', name):
      assert hasattr(advprop, name.split('.')[1]), f'{page}:{number}: {name}'
    elif re.fullmatch(r'efficientnet_advprop(\.\w+)+', name):
      try:
        importlib.import_module(name)
      except ModuleNotFoundError:
        module, _, attribute = name.rpartition('.')
        found = importlib.import_module(module)
        assert hasattr(found, attribute), f'{page}:{number}: {name}'


def test_the_page_of_training_lists_every_flag():
  page = _text('docs/training.md')
  missing = [f for f in _flags('main.py') if f'`--{f}`' not in page]
  assert not missing


def test_the_page_of_settings_is_current():
  written = (_ROOT / 'docs' / 'settings.md').read_text(encoding='utf-8')
  assert written == settings_page.page(), 'run tools/write_settings.py'


def test_every_setting_has_a_comment_that_explains_it():
  for line in settings_page.page().splitlines():
    cells = line.strip('| ').split(' | ')
    if line.startswith('| `'):
      assert len(cells[3]) > 10, line


def test_the_quick_start_begins_with_its_two_commands():
  """.ci/run takes the two commands from there."""
  blocks = [b for b in _blocks('README.md') if b.heading == '## Quick start']
  commands = [b for b in blocks if b.language in ('', 'sh')]
  assert blocks[:2] == commands, 'exactly two, before everything else'
  first, second = (block.text for block in commands)
  assert 'main.py --config_file=hparams/demo.yaml' in first
  assert '-m pytest' in second
  for text in (first, second):
    assert text.startswith('python3 -m venv .venv && .venv/bin/pip install')
    assert text.count('\n') == 1


def _multiply_adds(name):
  """Multiply-adds of the forward pass of one image: convolutions, classifier.

  A kernel has [height, width, inputs of a group, outputs] elements, or, if
  depthwise, [height, width, channels, 1]: each is used once at every place.
  """
  model = pretrained.build_model(name, auxiliary_domains=())
  size = config_lib.model_config(name, {}).image_size
  spec = tf.TensorSpec([1, size, size, 3])
  graph = tf.function(model.call).get_concrete_function(spec).graph
  total = 0
  for operation in graph.get_operations():
    if operation.type in ('Conv2D', 'DepthwiseConv2dNative'):
      _, height, width, _ = operation.outputs[0].shape
      total += height * width * operation.inputs[1].shape.num_elements()
    elif operation.type == 'MatMul':
      total += operation.inputs[1].shape.num_elements()
  return total


@pytest.mark.slow
def test_the_cost_table_counts_multiply_adds():
  rows = re.findall(
    r'^\| (B\d) \| (\d+) \| ([\d.]+) \|', _text('docs/performance.md'), re.M
  )
  assert len(rows) == 9
  for network, _, written in rows:
    counted = _multiply_adds(f'efficientnet-{network.lower()}') / 1e9
    assert f'{counted:.3g}' == written, network


def _shown_python():
  for page in ('README.md', 'docs/keras.md'):
    for block in _blocks(page):
      if block.language == 'python':
        # A network of keras.applications takes half a minute to trace.
        marks = [pytest.mark.slow] if 'applications' in block.text else []
        name = block.heading.strip('# ')
        yield pytest.param(block, id=f'{page}: {name}', marks=marks)


@pytest.mark.parametrize('block', _shown_python())
def test_the_shown_python_runs(block, tmp_path, monkeypatch):
  """Each block by itself, as a reader would paste it."""
  monkeypatch.chdir(tmp_path)
  tf.keras.utils.set_random_seed(0)
  exec(compile(block.text, f'{block.page}:{block.line}', 'exec'), {})


def test_shown_commands_use_the_environment_of_the_quick_start():
  """On a TPU VM, the image's own Python is the right one."""
  for where, words in _fenced_commands():
    is_set_up = words[1:3] == ['-m', 'venv'] or where.startswith('docs/tpu.md')
    assert words[0].startswith('.venv') or is_set_up, f'{where}: {words}'


def test_the_claims_of_the_readme_are_those_of_the_results():
  claims = re.search(r'\| claim \| found.*?\n\n', _text('README.md'), re.S)
  assert claims.group() in _text('docs/results/README.md')


def test_the_first_screen_has_the_intervals_of_the_results():
  screen = _text('README.md').split('# Use it')[0]
  number = r'[-+]\d+\.\d'
  found = re.findall(rf'{number} \({number} to {number}\)', screen)
  assert len(found) >= 3
  table = _text('docs/results/README.md')
  for interval in found:
    assert f'| {interval} |' in table, interval


@pytest.mark.slow
def test_the_notebook_runs_and_shows_its_outputs(monkeypatch):
  """Cell by cell, in its folder, on the embedded data set."""
  pyplot = pytest.importorskip('matplotlib.pyplot')
  monkeypatch.setattr(pyplot, 'show', lambda: pyplot.close('all'))
  monkeypatch.chdir(_ROOT / 'docs')
  notebook = json.loads(_text('docs/any_network.ipynb'))
  cells = [c for c in notebook['cells'] if c['cell_type'] == 'code']
  assert [c['execution_count'] for c in cells] == list(range(1, len(cells) + 1))
  kinds = {o['output_type'] for cell in cells for o in cell['outputs']}
  assert kinds == {'stream', 'display_data'}
  scope = {}
  for number, cell in enumerate(cells, 1):
    exec(compile(''.join(cell['source']), f'cell {number}', 'exec'), scope)
  last = scope['history']
  assert last['clean_loss'][-1] < last['clean_loss'][0]
  assert scope['same']
