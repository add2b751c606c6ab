import dataclasses
import json
import os

import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import evaluating
from efficientnet_advprop.base import errors
from efficientnet_advprop.config import recipes
from efficientnet_advprop.export import exported_network
from efficientnet_advprop.export import saved_model
from efficientnet_advprop.export import tflite
from efficientnet_advprop.models import factory
from efficientnet_advprop.testing import tiny_data
from efficientnet_advprop.testing import tiny_network
from efficientnet_advprop.testing import tiny_runs


@pytest.fixture(scope='module', name='config')
def _config(tmp_path_factory):
  """A plain test, and tests of another split, other norms, an attack."""
  directory = tmp_path_factory.mktemp('data')
  tiny_data.write_split(directory, 'train', [20])
  tiny_data.write_split(directory, 'validation', [7])
  tiny_data.write_split(directory, 'hard', [5])
  base = config_lib.to_dict(tiny_data.config(directory))
  changes = {
    'model': config_lib.to_dict(
      config_lib.ModelConfig(**{**tiny_runs.RESNET, 'image_size': 8})
    ),
    'eval': {
      'tests': {
        'hard': {'split': 'hard'},
        'auxiliary': {'domain': 'adversarial'},
        'attacked': {'attack': {'epsilon': 1}},
      }
    },
  }
  return config_lib.from_dict(recipes.merge(base, changes))


@pytest.fixture(scope='module', name='model_dir')
def _model_dir(config, tmp_path_factory):
  model_dir = tmp_path_factory.mktemp('runs') / 'one'
  tf.keras.utils.set_random_seed(3)
  network = factory.create_model(config.model, 3, ('adversarial',))
  raw = factory.create_model(config.model, 3, ('adversarial',))
  step = tf.train.Checkpoint(_iterations=tf.Variable(9, dtype=tf.int64))
  checkpoint = tf.train.Checkpoint(model=raw, ema=network, optimizer=step)
  checkpoint.write(str(model_dir / 'checkpoints' / 'ckpt-9'))
  return str(model_dir)


@pytest.fixture(scope='module', name='strategy')
def _strategy():
  return tf.distribute.OneDeviceStrategy('CPU:0')


@pytest.fixture(scope='module', name='files')
def _files(config, model_dir, tmp_path_factory):
  """A version for TF Serving with a TFLite file next to it."""
  export_dir = str(tmp_path_factory.mktemp('export'))
  version = tiny_network.write_version(config, model_dir, export_dir)
  model, _ = saved_model.restored_model(config, model_dir)
  path = os.path.join(version, 'model.tflite')
  with open(path, 'wb') as file:
    file.write(tflite.convert(model, 'float32'))
  return version, path


def _with_network(config, path):
  changed = dataclasses.replace(config.eval, network=path)
  return dataclasses.replace(config, eval=changed)


def _read(*parts):
  with open(os.path.join(*parts), encoding='utf-8') as file:
    values = json.load(file)
  values.pop('evaluated', None)
  return values


_FIGURES = 'num_examples', 'loss', 'top_1_accuracy', 'top_5_accuracy'


def test_files_have_the_figures_of_their_checkpoint(
  config, strategy, model_dir, files
):
  raw = dataclasses.replace(config.eval, weights='raw', tests={})
  evaluating.run(dataclasses.replace(config, eval=raw), strategy, model_dir)
  assert _read(model_dir, 'eval.json')['weights'] == 'raw'
  raw_loss = _read(model_dir, 'eval.json')['loss']
  session = evaluating.run(config, strategy, model_dir)
  assert session.table().count('\n') == 1 + 4  # The header, a rule, four tests.
  assert os.path.exists(session.report_path)
  version, path = files
  name = os.path.basename(version)
  folders = {version: name, path: f'{name}-model'}
  for network, folder in folders.items():
    evaluating.run(_with_network(config, network), strategy, model_dir)
    where = os.path.join(model_dir, 'exported', folder)
    # Tests of norms and gradients that it does not have are left out.
    evals = sorted(os.listdir(os.path.join(where, 'evals')))
    made = ['classes.csv', 'hard.json', 'mistakes.png', 'report.md']
    assert evals == made
    for test in ('eval.json', 'evals/hard.json'):
      found, expected = _read(where, test), _read(model_dir, test)
      for key in _FIGURES:
        assert found[key] == pytest.approx(expected[key], rel=1e-5), key
    assert _read(where, 'eval.json')['loss'] != pytest.approx(raw_loss)


def test_what_does_not_fit_is_refused(config, strategy, model_dir, files):
  values = config_lib.to_dict(config)
  values['model']['image_size'] = 16
  other = _with_network(config_lib.from_dict(values), files[0])
  with pytest.raises(errors.ExportError, match=r'image_size=8; .*=16'):
    evaluating.run(other, strategy, model_dir)
  two = tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1'])
  with pytest.raises(config_lib.ConfigError, match=r'^eval\.network: .*one_d'):
    evaluating.run(_with_network(config, files[0]), two, model_dir)
  missing = _with_network(config, '/nowhere/x.tflite')
  with pytest.raises(errors.ExportError, match=r'^/nowhere/x\.tflite: not'):
    evaluating.run(missing, strategy, model_dir)
  assert not exported_network.is_exported(model_dir)


@pytest.mark.once
def test_an_evaluation_lists_its_images_once(
  config, strategy, model_dir, tmp_path
):
  """For all tests of the same images together."""
  directory = str(tmp_path)
  tiny_data.write_class_folders(directory, {'train': 3, 'validation': 7})
  tests = {
    'auxiliary': config_lib.NamedTestConfig(domain='adversarial'),
    'attacked': config.eval.tests['attacked'],
  }
  config = dataclasses.replace(
    config,
    data=dataclasses.replace(config.data, dir=directory),
    eval=dataclasses.replace(config.eval, tests=tests),
  )
  with tiny_data.counting_listings() as counts:
    evaluating.run(config, strategy, model_dir)
  folder = os.path.join(directory, 'validation', 'class_0')
  assert counts[folder] == 1
