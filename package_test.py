"""What pip installs: the wheel, its extras and its command."""

import glob
import os
from pathlib import Path
import re
import subprocess
import sys
import zipfile

from packaging import requirements
import pytest

if sys.version_info >= (3, 11):
  import tomllib

_ROOT = Path(__file__).parent
_FILES = {
  'requirements.txt': ('dependencies', 'application'),
  'requirements-export.txt': ('export',),
  'requirements-results.txt': ('results', 'robustness'),
  'requirements-robustness.txt': ('robustness',),
  'requirements-weights.txt': ('weights',),
}


def _pinned(name):
  """The pinned requirements of a file and of the files that it names."""
  found = []
  for line in (_ROOT / name).read_text().splitlines():
    text = line.split(' #')[0].strip()
    if text.startswith('-r '):
      found += _pinned(text[3:])
    elif text and not text.startswith(('#', '-c')):
      found.append(requirements.Requirement(text))
  return found


def _stated(extras):
  with open(_ROOT / 'pyproject.toml', 'rb') as file:
    project = tomllib.load(file)['project']
  lists = {'dependencies': project['dependencies']}
  lists.update(project['optional-dependencies'])
  return [
    requirements.Requirement(text) for extra in extras for text in lists[extra]
  ]


def _applies(requirement, version):
  marker = requirement.marker
  return marker is None or marker.evaluate({'python_version': version})


@pytest.mark.skipif(sys.version_info < (3, 11), reason='needs tomllib')
@pytest.mark.parametrize('version', ['3.9', '3.11', '3.13'])
@pytest.mark.parametrize('name', _FILES)
def test_extras_are_the_pinned_requirements(name, version):
  """The same packages, and each pinned version is one that the extra allows."""
  stated = {
    re.sub('[-_]', '-', r.name.lower()): r
    for r in _stated(_FILES[name])
    if _applies(r, version)
  }
  pinned = {
    re.sub('[-_]', '-', r.name.lower()): r
    for r in _pinned(name)
    if _applies(r, version)
  }
  assert set(stated) == set(pinned)
  for package, requirement in pinned.items():
    for pin in requirement.specifier:
      assert stated[package].specifier.contains(pin.version), package


@pytest.fixture(scope='module', name='wheel')
def _wheel(tmp_path_factory):
  folder = tmp_path_factory.mktemp('wheel')
  pip = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps']
  subprocess.run([*pip, f'--wheel-dir={folder}', str(_ROOT)], check=True)
  (path,) = glob.glob(os.path.join(folder, '*.whl'))
  return path


@pytest.mark.slow
def test_the_wheel_holds_the_package_alone(wheel):
  with zipfile.ZipFile(wheel) as file:
    names = file.namelist()
  tops = {name.split('/')[0] for name in names}
  assert {top for top in tops if '.dist-info' not in top} == {
    'efficientnet_advprop'
  }
  share = 'efficientnet_advprop/share'
  assert f'{share}/hparams/demo.yaml' in names
  assert f'{share}/testdata/labels.txt' in names
  assert f'{share}/tools/build_tfrecords.py' in names
  for name in names:
    assert not name.endswith('_test.py') and '/testing/' not in name, name


_NOTEBOOK = """
import numpy as np
import efficientnet_advprop as advprop
import tensorflow as tf
keras = tf.keras
base = keras.applications.MobileNetV2(
    include_top=False, pooling='avg', input_shape=(32, 32, 3), weights=None,
    alpha=0.35)
network = keras.Sequential([base, keras.layers.Dense(10, activation='softmax')])
model = advprop.AdvPropModel(
    network, attack=advprop.AttackConfig(epsilon=1), pixel_range=(0, 255))
model.compile('adam', loss='sparse_categorical_crossentropy',
              metrics=['accuracy'])
images = np.random.uniform(0, 255, [16, 32, 32, 3]).astype('float32')
model.fit(images, np.arange(16) % 10, batch_size=8, verbose=2)
network.save('shipped.keras')
keras.models.load_model('shipped.keras')
"""


@pytest.mark.slow
def test_it_works_from_an_empty_folder(wheel, tmp_path):
  """In an environment that holds nothing but the wheel and what it needs."""
  environment = tmp_path / 'environment'
  subprocess.run([sys.executable, '-m', 'venv', environment], check=True)
  programs = environment / 'bin'
  pip = [programs / 'python', '-m', 'pip', 'install', '-q']
  subprocess.run([*pip, wheel], check=True)
  folder = tmp_path / 'empty'
  folder.mkdir()
  clean = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}

  def run(*command):
    return subprocess.run(
      command,
      cwd=folder,
      env=clean,
      check=True,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    ).stdout

  shown = run(
    programs / 'advprop',
    '--config_file=hparams/demo.yaml',
    '--params_override=train.epochs=0.2,train.log_steps=2,'
    'model.width_coefficient=0.25,model.depth_coefficient=0.1,'
    'eval.tests.auxiliary=null,eval.tests.attacked=null',
    '--model_dir=run',
  )
  assert 'SavedModel' in shown and 'Traceback' not in shown
  assert (folder / 'run' / 'config.yaml').exists()
  assert '--output_dir' in run(programs / 'advprop', 'build_tfrecords', '-h')
  run(programs / 'python', '-c', _NOTEBOOK)
  assert (folder / 'shipped.keras').exists()
