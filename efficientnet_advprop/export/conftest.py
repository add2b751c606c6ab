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
  return tiny_network.run_config(directory)


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
  tiny_network.write_run(config, network, directory)
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
