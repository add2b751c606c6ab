"""A tiny network with its data, which the tests here share."""

import os
import pathlib

import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.export import sample_images
from efficientnet_advprop.models import factory
from efficientnet_advprop.testing import tiny_network


@pytest.fixture(scope='session')
def config(tmp_path_factory: pytest.TempPathFactory) -> config_lib.Config:
  """A run on drawn class folders."""
  directory = tmp_path_factory.mktemp('data')
  tiny_network.write_images(directory)
  values = {
    'model': {
      'name': 'efficientnet-b0',
      'image_size': tiny_network.SIZE,
      'width_coefficient': 0.25,
      'depth_coefficient': 0.1,
    },
    'data': {
      'dir': os.fspath(directory),
      'num_classes': 3,
      'num_train_images': 30,
      'num_eval_images': 12,
    },
    'train': {'batch_size': 6},
  }
  return config_lib.from_dict(values)


@pytest.fixture(scope='session')
def network(config: config_lib.Config) -> tf.keras.Model:
  """The averaged network of the checkpoint, with its auxiliary norms."""
  network = factory.create_model(config.model, 3, ('adversarial',))
  tiny_network.fit(network, sample_images.evenly_spaced(config, 'train', 30))
  return network


@pytest.fixture(scope='session')
def model_dir(
  config: config_lib.Config,
  network: tf.keras.Model,
  tmp_path_factory: pytest.TempPathFactory,
) -> str:
  """A run's folder, whose raw weights are not the averaged ones."""
  directory = os.fspath(tmp_path_factory.mktemp('model'))
  raw = factory.create_model(config.model, 3, ('adversarial',))
  step = tf.train.Checkpoint(
    _iterations=tf.Variable(tiny_network.STEP, dtype=tf.int64)
  )
  checkpoint = tf.train.Checkpoint(model=raw, ema=network, optimizer=step)
  checkpoint.write(
    os.path.join(directory, 'checkpoints', f'ckpt-{tiny_network.STEP}')
  )
  return directory


@pytest.fixture(scope='session')
def version(
  config: config_lib.Config,
  model_dir: str,
  tmp_path_factory: pytest.TempPathFactory,
) -> str:
  """The folder of an exported version."""
  export_dir = os.fspath(tmp_path_factory.mktemp('export'))
  return tiny_network.write_version(config, model_dir, export_dir)


@pytest.fixture(scope='session')
def encoded(config: config_lib.Config) -> 'list[bytes]':
  """The validation images, class by class."""
  folder = pathlib.Path(config.data.dir, 'validation')
  paths = sorted(path for path in folder.glob('*/*'))
  return [path.read_bytes() for path in paths]
