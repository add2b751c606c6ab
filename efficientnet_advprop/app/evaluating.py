"""The mode `eval`: which network is evaluated, and where its results go.

Every kind of network passes through the same evaluation (`networks`). Tests
that a network cannot run, such as an attack on a file that gives no gradients,
are left out, and a line says so.
"""

import dataclasses
import os

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import networks
from efficientnet_advprop.base import errors
from efficientnet_advprop.evaluation import image_sets
from efficientnet_advprop.evaluation import session as session_lib


def run(
  config: config_lib.Config, strategy: tf.distribute.Strategy, model_dir: str
) -> session_lib.Session:
  """Evaluates `eval.network` or, without it, the newest checkpoint of a run.

  Results of a network that is not a run of this project go to a folder of their
  own: `<model_dir>/exported/<version>` for an exported version,
  `<version>-<name>` for a TFLite or ONNX file, `<name>` for a network of Keras.

  Returns:
    The session, with all results.

  Raises:
    CheckpointError: there is no checkpoint, or it is of another network.
    ConfigError: the network cannot be evaluated with this strategy.
    DataError: images of a test are missing, damaged or not those of the set.
    ExportError: a file cannot be read as a network, or does not fit the run.
  """
  network = networks.open_network(config, strategy, model_dir)
  if network.is_foreign:
    size = network.image_size
    model = dataclasses.replace(config.model, image_size=size)
    config = dataclasses.replace(config, model=model)
  for key, expected, found in (
    ('model.image_size', config.model.image_size, network.image_size),
    ('data.num_classes', config.data.num_classes, network.num_classes),
  ):
    if expected != found:
      raise errors.ExportError(
        f'{network.title}: has {key}={found}; the run has {key}={expected}'
      )
  session = session_lib.Session(
    _feasible(config, network),
    strategy,
    network.call,
    os.path.join(model_dir, network.folder),
    network.weights,
  )
  session.run_plain(network.step)
  session.run_named(network.step, network.digest)
  return session


def _feasible(
  config: config_lib.Config, network: networks.Network
) -> config_lib.Config:
  """Leaves out the tests that a network cannot run."""
  tests = {}
  for name, test in config.eval.tests.items():
    side = image_sets.STORED_SIDES.get(test.kind, network.image_size)
    reason = ''
    if test.domain not in network.domains:
      reason = f'has no norms of the domain {test.domain}'
    elif test.attack is not None and not network.has_gradients:
      reason = 'gives no gradients to an attack'
    elif side != network.image_size and not network.takes_any_size:
      reason = f'takes {network.image_size} pixels, not {side}'
    if reason:
      logging.info('%s is left out: %s %s', name, network.title, reason)
    else:
      tests[name] = test
  changed = dataclasses.replace(config.eval, tests=tests)
  return dataclasses.replace(config, eval=changed)
