"""A run's checkpoints, which the tests here share."""

import pytest
import tensorflow as tf

from efficientnet_advprop import pretrained
from efficientnet_advprop.testing import tiny_runs
from efficientnet_advprop.weights import checkpoints


@pytest.fixture(scope='module')
def saved(
  tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, tf.keras.Model, tf.keras.Model]:
  """A model_dir with checkpoints of steps 3, 4 and 5; network and average."""
  model_dir = tmp_path_factory.mktemp('run')
  model, average = (
    pretrained.build_model(
      'efficientnet-b0', 10, ('adversarial',), **tiny_runs.EFFICIENTNET
    )
    for _ in range(2)
  )
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
