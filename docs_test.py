"""Checks that the pages agree with the code: keys, paths, links and results.

Read are README.md, CONTRIBUTING.md, CHANGELOG.md and docs/; commands_test.py
reads the commands.
"""

import dataclasses
import importlib
import json
import re
import typing

import pytest
import tensorflow as tf
import yaml

import efficientnet_advprop as advprop
from efficientnet_advprop import config as config_lib
from efficientnet_advprop import pretrained
from efficientnet_advprop.config import fields
from efficientnet_advprop.testing import pages
from tools.documents import settings as settings_page

_SECTIONS = [f.name for f in dataclasses.fields(config_lib.Config)]
# What looks like a key of a section and is a file, or a method of Keras.
_NO_KEYS = {
  *('attack.png', 'eval.json', 'model.ckpt', 'model.h5', 'model.keras'),
  *('model.onnx', 'model.tflite', 'model.fit', 'model.save', 'data.zip'),
}


def _rows(page):
  """Rows of tables: line number, cells, whether it begins a table."""
  before = None
  for number, line in pages.prose(page):
    if not line.startswith('|'):
      before = None
      continue
    bare = re.sub(r'`[^`]*`', 'x', line.strip()).replace(r'\|', 'x')
    yield number, len(bare.strip('|').split('|')), before is None
    before = number


@pytest.mark.parametrize('page', pages.ALL)
def test_rows_of_a_table_have_as_many_cells_as_its_header(page):
  header, failures = 0, []
  for number, cells, begins in _rows(page):
    header = cells if begins else header
    if cells != header:
      failures.append(f'{page}:{number}: {cells} cells under {header}')
  pages.tell(failures)


def _anchors(page):
  """The anchors that GitHub gives the headings of a page."""
  headings = [line for _, line in pages.prose(page) if re.match(r'#+ ', line)]
  plain = [re.sub(r'[^\w\- ]', '', h.lstrip('# ').lower()) for h in headings]
  return {heading.replace(' ', '-') for heading in plain}


@pytest.mark.parametrize('page', pages.ALL)
def test_every_relative_link_resolves(page):
  failures = []
  text = '\n'.join(line for _, line in pages.prose(page))
  for target in re.findall(r'\]\(([^)\s]+)\)', text):
    if re.match(r'https?:|mailto:', target):
      continue
    path, _, anchor = target.partition('#')
    found = (pages.ROOT / page).parent / path if path else pages.ROOT / page
    if not found.exists():
      failures.append(f'{page}: {target}: no such file')
    elif anchor and anchor not in _anchors(found.relative_to(pages.ROOT)):
      failures.append(f'{page}: {target}: no such heading')
  pages.tell(failures)


def _quoted(page):
  """What stands in backticks, with the numbers of the lines."""
  for number, line in pages.prose(page):
    for quoted in re.findall(r'`([^`]+)`', line):
      yield number, quoted


def _is_missing(quoted):
  """Whether a quoted path of the project is not there."""
  path = quoted.split('::')[0].split(':')[0]
  top = path.split('/')[0]
  if re.search(r'[<>\s…{}()=]|\.\.\.', path):
    return False
  folders = [p.name for p in pages.ROOT.iterdir() if p.is_dir()]
  is_ours = '/' in path and top in folders and top != 'runs'
  if is_ours or re.fullmatch(r'requirements[\w*-]*\.txt|[A-Z]+\.md', path):
    return not list(pages.ROOT.glob(path.rstrip('/')))
  if path.endswith('.py'):
    return not [*pages.ROOT.glob(path), *pages.ROOT.glob(f'[et]*/**/{path}')]
  return False


@pytest.mark.parametrize('page', pages.CURRENT)
def test_every_quoted_path_exists(page):
  pages.tell(
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


@pytest.mark.parametrize('page', pages.CURRENT)
def test_every_quoted_setting_exists(page):
  pages.tell(
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


@pytest.mark.parametrize('page', pages.CURRENT)
def test_yaml_json_and_python_blocks_are_valid(page):
  for block in pages.blocks(page):
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


@pytest.mark.parametrize('page', pages.CURRENT)
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


def test_the_page_of_settings_is_current():
  written = pages.text('docs/settings.md')
  assert written == settings_page.page(), 'run tools/write_settings.py'


def test_every_setting_has_a_comment_that_explains_it():
  for line in settings_page.page().splitlines():
    cells = line.strip('| ').split(' | ')
    if line.startswith('| `'):
      assert len(cells[3]) > 10, line


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
  page = pages.text('docs/performance.md')
  rows = re.findall(r'^\| (B\d) \| (\d+) \| ([\d.]+) \|', page, re.M)
  assert len(rows) == 9
  for network, _, written in rows:
    counted = _multiply_adds(f'efficientnet-{network.lower()}') / 1e9
    assert f'{counted:.3g}' == written, network


def _shown_python():
  for page in ('README.md', 'docs/keras.md'):
    for block in pages.blocks(page):
      if block.language == 'python':
        # A network of keras.applications takes half a minute to trace.
        marks = [pytest.mark.slow] if 'applications' in block.text else []
        name = block.heading.strip('# ')
        yield pytest.param(block, id=f'{page}: {name}', marks=marks)


@pytest.mark.parametrize('block', _shown_python())
def test_the_shown_python_runs(block, tmp_path, monkeypatch):
  """Each block by itself, as a reader would paste it."""
  monkeypatch.chdir(tmp_path)
  exec(compile(block.text, f'{block.page}:{block.line}', 'exec'), {})


def test_the_claims_of_the_readme_are_those_of_the_results():
  claims = re.search(r'\| claim \| found.*?\n\n', pages.text('README.md'), re.S)
  assert claims.group() in pages.text('docs/results/README.md')


def test_the_first_screen_has_the_intervals_of_the_results():
  screen = pages.text('README.md').split('# Use it')[0]
  number = r'[-+]\d+\.\d'
  found = re.findall(rf'{number} \({number} to {number}\)', screen)
  assert len(found) >= 3
  table = pages.text('docs/results/README.md')
  for interval in found:
    assert f'| {interval} |' in table, interval


@pytest.mark.slow
def test_the_notebook_runs_and_shows_its_outputs(monkeypatch):
  """Cell by cell, in its folder, on the embedded data set."""
  pyplot = pytest.importorskip('matplotlib.pyplot')
  monkeypatch.setattr(pyplot, 'show', lambda: pyplot.close('all'))
  monkeypatch.chdir(pages.ROOT / 'docs')
  notebook = json.loads(pages.text('docs/any_network.ipynb'))
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
