import os

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import pretrained
from efficientnet_advprop.base import errors
from efficientnet_advprop.testing import tiny_runs

_TINY = tiny_runs.EFFICIENTNET


@pytest.fixture(name='run')
def _run(tmp_path):
  """A run's folder, and its averaged network."""
  config = config_lib.from_dict(
    {
      'model': {'name': 'efficientnet-lite0', **_TINY},
      'data': {'num_classes': 3, 'dir': os.fspath(tmp_path / 'data')},
    }
  )
  average = pretrained.build_model('efficientnet-lite0', 3, **_TINY)
  (tmp_path / 'config.yaml').write_text(config_lib.to_yaml(config))
  (tmp_path / 'checkpoints').mkdir()
  tf.train.Checkpoint(ema=average).write(
    os.fspath(tmp_path / 'checkpoints' / 'ckpt-7')
  )
  return tmp_path, average


def test_the_network_of_a_run_is_loaded(run):
  model_dir, average = run
  loaded = pretrained.load_model(os.fspath(model_dir))
  images = tf.random.stateless_uniform([2, 16, 16, 3], [0, 0], -1, 1)
  np.testing.assert_array_equal(loaded.network(images), average(images))
  assert loaded.class_names is None  # The data are not there.
  assert loaded.config.model.name == 'efficientnet-lite0'
  (model_dir / 'data').mkdir()
  (model_dir / 'data' / 'labels.txt').write_text('red\ngreen\nblue\n')
  network, class_names, _ = pretrained.load_model(os.fspath(model_dir))
  assert class_names == ('red', 'green', 'blue')
  assert network.auxiliary_domains == ('adversarial',)


def test_what_is_no_run_is_refused(tmp_path):
  with pytest.raises(errors.CheckpointError, match=r'it has no config\.yaml'):
    pretrained.load_model(os.fspath(tmp_path))


def test_a_run_s_setting_that_differs_is_named(run):
  settings = {**_TINY, 'width_coefficient': 0.5}
  with pytest.raises(
    errors.CheckpointError, match=r'width_coefficient is 0\.25, here'
  ):
    pretrained.build_model(
      'efficientnet-lite0', 3, weights=os.fspath(run[0]), **settings
    )
