"""The Dockerfiles, as far as they can be judged without a builder."""

import json
import pathlib
import re

import pytest

_ROOT = pathlib.Path(__file__).parent
_FILES = sorted((_ROOT / 'docker').glob('*.Dockerfile'))


def _instructions(path):
  """Returns pairs of instruction and argument, in their order."""
  text = path.read_text().replace('\\\n', ' ')
  lines = [line for line in text.splitlines() if line[:1] not in ('', '#')]
  return [tuple(line.split(None, 1)) for line in lines]


def test_there_is_one_for_cpus_and_one_for_gpus():
  names = [path.name for path in _FILES]
  assert names == ['cpu.Dockerfile', 'gpu.Dockerfile']


@pytest.mark.parametrize('path', _FILES, ids=lambda path: path.name)
def test_the_base_is_the_official_image_of_the_pinned_series(path):
  (base,) = [value for name, value in _instructions(path) if name == 'FROM']
  match = re.fullmatch(r'tensorflow/tensorflow:(\d+\.\d+)\.\d+(-gpu)?', base)
  requirements = (_ROOT / 'requirements.txt').read_text()
  assert f'\ntensorflow=={match[1]}.' in requirements
  assert bool(match[2]) == path.name.startswith('gpu')


@pytest.mark.parametrize('path', _FILES, ids=lambda path: path.name)
def test_what_is_copied_installed_and_started_exists(path):
  ignored = (_ROOT / '.dockerignore').read_text().splitlines()
  copied = []
  for name, value in _instructions(path):
    assert name in ('FROM', 'ENV', 'WORKDIR', 'COPY', 'RUN', 'ENTRYPOINT')
    if name == 'COPY':
      *sources, target = value.split()
      assert target in ('.', './')
      assert all((_ROOT / source).exists() for source in sources)
      assert not set(sources) & set(ignored)
      copied += sources
    elif name == 'RUN' and value.startswith('pip '):
      # pip reads the constraints from within the requirements.
      (file,) = re.findall(r'-r (\S+)', value)
      assert file in copied
      for constraint in re.findall(r'^-c (\S+)', _text(file), re.M):
        assert constraint in copied
    elif name == 'ENTRYPOINT':
      assert (_ROOT / json.loads(value)[-1]).exists()
  assert copied[-1] == '.'


@pytest.mark.parametrize('path', _FILES, ids=lambda path: path.name)
def test_packages_go_into_the_environment_that_starts(path):
  steps = _instructions(path)
  made = steps.index(('RUN', 'python3 -m venv /opt/venv'))
  entered = steps.index(('ENV', 'PATH=/opt/venv/bin:$PATH'))
  (installed,) = [
    index for index, (_, value) in enumerate(steps) if value.startswith('pip ')
  ]
  assert made < entered < installed
  assert steps[-1] == ('ENTRYPOINT', '["python", "main.py"]')


def _text(name):
  return (_ROOT / name).read_text()
