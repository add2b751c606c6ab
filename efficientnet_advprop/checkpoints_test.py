import os

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import checkpoints
from efficientnet_advprop import models


def _model(domains=('adversarial',), classes=10, width=0.25):
  return models.build_model(
    'efficientnet-b0',
    classes,
    domains,
    image_size=16,
    width_coefficient=width,
    depth_coefficient=0.1,
  )


@pytest.fixture(scope='module', name='saved')
def _saved(tmp_path_factory):
  """A model_dir with the checkpoints of steps 3, 4 and 5."""
  model_dir = tmp_path_factory.mktemp('run')
  model, average = _model(), _model()
  optimizer = tf.keras.optimizers.SGD()
  optimizer.build(model.trainable_variables)
  checkpoint = tf.train.Checkpoint(
    model=model, ema=average, optimizer=optimizer
  )
  manager = checkpoints.CheckpointManager(
    checkpoint, str(model_dir / 'checkpoints'), 3
  )
  for step in (1, 2, 3, 4, 5):
    optimizer.iterations.assign(step)
    manager.save(step)
  return str(model_dir), model, average


def test_the_newest_are_kept(saved):
  paths = checkpoints.checkpoint_paths(os.path.join(saved[0], 'checkpoints'))
  assert [os.path.basename(p) for p in paths] == ['ckpt-5', 'ckpt-4', 'ckpt-3']


@pytest.mark.parametrize('weights', ['ema', 'raw'])
def test_either_set_of_weights_is_restored(saved, weights):
  model_dir, model, average = saved
  restored = _model()
  assert checkpoints.restore(restored, model_dir, weights) == 5
  source = average if weights == 'ema' else model
  for ours, theirs in zip(restored.variables, source.variables):
    np.testing.assert_array_equal(ours, theirs)


def test_a_model_without_auxiliary_domains_takes_the_main_ones(saved):
  model_dir, _, average = saved
  restored = _model(domains=())
  path = os.path.join(model_dir, 'checkpoints', 'ckpt-4')
  assert checkpoints.restore(restored, path) == 4
  np.testing.assert_array_equal(
    restored.head.norm.moving_mean, average.head.norm.moving_mean
  )
  images = tf.random.stateless_uniform([2, 16, 16, 3], [0, 0], -1, 1)
  np.testing.assert_allclose(restored(images), average(images), atol=1e-6)


@pytest.mark.parametrize(
  'settings',
  [dict(classes=7), dict(width=0.5), dict(domains=('augmented',))],
)
def test_another_model_is_refused(saved, settings):
  with pytest.raises(checkpoints.CheckpointError, match='another model') as e:
    checkpoints.restore(_model(**settings), saved[0])
  assert '\n' not in str(e.value)


def test_a_missing_checkpoint_is_said(tmp_path):
  with pytest.raises(checkpoints.CheckpointError, match='no checkpoint found'):
    checkpoints.restore(_model(), str(tmp_path))
