"""The mode `eval`: which network is evaluated, and where its results go.

A checkpoint, an exported SavedModel and a TFLite file pass through the same
evaluation. An exported file has only the main norms and gives no gradients:
tests through other norms and under attack are left out, and a line says so.
"""

import dataclasses
import os

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import devices
from efficientnet_advprop.base import errors
from efficientnet_advprop.evaluation import image_sets
from efficientnet_advprop.evaluation import session as session_lib
from efficientnet_advprop.export import exported_network
from efficientnet_advprop.models import factory
from efficientnet_advprop.weights import checkpoints


def run(
  config: config_lib.Config, strategy: tf.distribute.Strategy, model_dir: str
) -> session_lib.Session:
  """Evaluates `eval.network` or, without it, the newest checkpoint of a run.

  Results of an exported file go to `<model_dir>/exported/<version>` or, if it
  is a TFLite file, `<model_dir>/exported/<version>-<name>`.

  Returns:
    The session, with all results.

  Raises:
    CheckpointError: there is no checkpoint, or it is of another network.
    ConfigError: the network cannot be evaluated with this strategy.
    DataError: images of a test are missing, damaged or not those of the set.
    ExportError: an exported file cannot be read, or does not fit the run.
  """
  path = config.eval.network or model_dir
  if exported_network.is_exported(path):
    return _run_exported(config, strategy, model_dir, path)
  tf.keras.mixed_precision.set_global_policy(config.train.precision)
  with strategy.scope():
    network = factory.create_model(
      config.model,
      config.data.num_classes,
      config.auxiliary_domains,
      compiled=devices.compiles_layers(strategy),
    )
    step = checkpoints.restore(network, path, config.eval.weights)
  session = session_lib.Session(config, strategy, network, model_dir)
  session.run_plain(step)
  session.run_named(step, checkpoints.digest(network))
  return session


def _run_exported(
  config: config_lib.Config,
  strategy: tf.distribute.Strategy,
  model_dir: str,
  path: str,
) -> session_lib.Session:
  if not isinstance(strategy, tf.distribute.OneDeviceStrategy):
    allowed = 'a checkpoint, or --strategy=one_device for exported files'
    raise config_lib.ConfigError('eval.network', path, allowed)
  network = exported_network.ExportedNetwork(path)
  for key, expected, found in (
    ('model.image_size', config.model.image_size, network.image_size),
    ('data.num_classes', config.data.num_classes, network.num_classes),
  ):
    if expected != found:
      raise errors.ExportError(
        f'{path}: was exported with {key}={found}; the run has {key}={expected}'
      )
  config = _feasible(config, network)
  version = os.path.abspath(path)
  if network.is_file:
    name, _ = os.path.splitext(os.path.basename(version))
    version = f'{os.path.dirname(version)}-{name}'
  folder = os.path.join(model_dir, 'exported', os.path.basename(version))
  step, weights = network.facts['step'], network.facts['weights']
  session = session_lib.Session(config, strategy, network, folder, weights)
  session.run_plain(step)
  session.run_named(step, network.digest)
  return session


def _feasible(
  config: config_lib.Config, network: exported_network.ExportedNetwork
) -> config_lib.Config:
  """Leaves out the tests that an exported file cannot run."""
  tests = {}
  for name, test in config.eval.tests.items():
    side = image_sets.STORED_SIDES.get(test.kind, network.image_size)
    reason = ''
    if test.domain != config_lib.MAIN_DOMAIN:
      reason = f'has no norms of the domain {test.domain}'
    elif test.attack is not None:
      reason = 'gives no gradients to an attack'
    elif side != network.image_size:
      reason = f'takes {network.image_size} pixels, not {side}'
    if reason:
      logging.info('%s is left out: %s %s', name, network.path, reason)
    else:
      tests[name] = test
  changed = dataclasses.replace(config.eval, tests=tests)
  return dataclasses.replace(config, eval=changed)
