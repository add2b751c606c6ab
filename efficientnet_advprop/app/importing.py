"""Turns published weights into a run that evaluates, exports and trains."""

from collections.abc import Sequence
import os
import shutil
import tempfile

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import paths
from efficientnet_advprop.models import factory
from efficientnet_advprop.training import optimizers
from efficientnet_advprop.weights import checkpoints
from efficientnet_advprop.weights import loading
from efficientnet_advprop.weights import readers
from efficientnet_advprop.weights import transfer


def import_weights(
  source: str, model_name: str, model_dir: str, overrides: Sequence[str] = ()
) -> config_lib.Config:
  """Writes `config.yaml` and `checkpoints/ckpt-0` of a new run.

  Args:
    source: weights of any kind; see `readers.read`.
    model_name: the network; its recipe is AdvProp's.
    model_dir: of the run.
    overrides: changes to the recipe, `section.key=value`. Unless one of them
      sets `model.normalization`, it is what the weights expect.

  Returns:
    The run's configuration.

  Raises:
    CheckpointError: the source cannot be read or is of another network or of
      another number of classes, or model_dir holds a run. Nothing is left
      behind.
    ConfigError: an override is not allowed.
    OSError: model_dir cannot be written to. Nothing is left behind.
  """
  if tf.io.gfile.exists(
    os.path.join(model_dir, paths.CONFIG)
  ) or checkpoints.checkpoint_paths(os.path.join(model_dir, paths.CHECKPOINTS)):
    raise errors.CheckpointError(f'{model_dir}: holds a run already')
  weights = readers.read(source)
  recipe = paths.recipe(f'imagenet/{model_name}')
  config = config_lib.load_config(recipe, overrides)
  pixels = loading.expected_pixels(weights, config.model.architecture)
  config = config_lib.load_config(
    recipe, [f'model.normalization={pixels}', *overrides]
  )
  networks = []
  for raw in (True, False):
    network = factory.create_model(
      config.model, config.data.num_classes, config.auxiliary_domains
    )
    loading.check_classes(network, weights)
    transfer.initialize(network, weights, raw)
    networks.append(network)
  checkpoint = tf.train.Checkpoint(
    model=networks[0],
    ema=networks[1],
    optimizer=optimizers.create_optimizer(config, networks[0]),
  )
  _write_run(config, checkpoint, model_dir)
  return config


def _write_run(
  config: config_lib.Config, checkpoint: tf.train.Checkpoint, model_dir: str
) -> None:
  """Writes a run next to its place, and moves it there when it is whole."""
  is_new = not os.path.exists(model_dir)
  os.makedirs(model_dir, exist_ok=True)
  try:
    with tempfile.TemporaryDirectory(dir=model_dir) as folder:
      place = os.path.join(folder, paths.CHECKPOINTS)
      checkpoints.CheckpointManager(checkpoint, place, keep=1).save(0)
      with open(
        os.path.join(folder, paths.CONFIG), 'w', encoding='utf-8'
      ) as file:
        file.write(config_lib.to_yaml(config))
      for name in (paths.CHECKPOINTS, paths.CONFIG):
        os.rename(os.path.join(folder, name), os.path.join(model_dir, name))
  except BaseException:
    if is_new:
      shutil.rmtree(model_dir)
    raise
