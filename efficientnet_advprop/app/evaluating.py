"""What is evaluated and where its results go: the mode `eval` of main.py.

A checkpoint, an exported SavedModel and a TFLite file pass through the same
evaluator. An exported file has the main norms alone and gives no gradients:
tests through other norms and under attack are left out, and a line says so.
"""

from collections.abc import Mapping
import dataclasses
import os
from typing import Any

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import devices
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import paths
from efficientnet_advprop.base import progress
from efficientnet_advprop.evaluation import evaluator
from efficientnet_advprop.evaluation import image_sets
from efficientnet_advprop.evaluation import report
from efficientnet_advprop.evaluation import session as runner_lib
from efficientnet_advprop.evaluation import tables
from efficientnet_advprop.export import exported_network
from efficientnet_advprop.models import factory
from efficientnet_advprop.weights import checkpoints


class Tests:
  """The tests of one network, their results and the report on them."""

  def __init__(
    self,
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    network: evaluator.Network,
    folder: str,
  ):
    """Creates the evaluator.

    Args:
      config: of the run.
      strategy: under whose scope the network was created.
      network: its present weights count at each test.
      folder: gets `eval.json` and `evals/`.
    """
    self._config, self._folder = config, folder
    self._judge = evaluator.Evaluator(config, strategy, network)
    self._writes = devices.is_chief(strategy)
    self._results: dict[str, evaluator.Result] = {}

  def plain(self, step: Any, weights: Any = None) -> evaluator.Result:
    """Evaluates `data.eval_split`; see `Runner.plain`.

    Args:
      step: after which the network is what it is; None if that is unknown.
      weights: of the network; None for `eval.weights`.
    """
    result = self._runner(step, weights).plain()
    self._results[report.PLAIN] = result
    return result

  def named(self, step: Any, digest: str, weights: Any = None) -> None:
    """Runs `eval.tests` and writes the report; see `Runner.named`."""
    runner = self._runner(step, weights)
    for name, test in self._config.eval.tests.items():
      self._results[name] = runner.named(name, test, digest)
    if self._writes:
      run = report.Run(self._name(), self._config, self._results)
      report.write([run], os.path.join(self._folder, paths.EVALUATIONS))

  def _name(self) -> str:
    return os.path.basename(os.path.abspath(self._folder))

  def _runner(self, step: Any, weights: Any) -> runner_lib.Runner:
    return runner_lib.Runner(
      self._judge,
      self._config,
      self._folder,
      {'step': step, 'weights': weights or self._config.eval.weights},
      progress.Progress,
      self._writes,
    )

  def table(self) -> str:
    """The results, a row for each test."""
    return tables.format_results(self._results)

  def places(self) -> Mapping[str, str]:
    """Where the report lies."""
    return {
      'tests': os.path.join(self._folder, paths.EVALUATIONS, report.FILE_NAME)
    }


def run(
  config: config_lib.Config, strategy: tf.distribute.Strategy, model_dir: str
) -> Tests:
  """Evaluates `eval.network`, or the newest checkpoint in `model_dir`.

  Results of an exported file go to `<model_dir>/exported/<version>` or, if it
  is a TFLite file, `<model_dir>/exported/<version>-<name>`.

  Raises:
    CheckpointError: there is none, or not of this network.
    ConfigError: the network cannot be evaluated like this.
    DataError: the images of a test are missing, damaged or others.
    ExportError: an exported file cannot be read or does not fit.
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
  tests = Tests(config, strategy, network, model_dir)
  tests.plain(step)
  tests.named(step, checkpoints.digest(network))
  return tests


def _run_exported(
  config: config_lib.Config,
  strategy: tf.distribute.Strategy,
  model_dir: str,
  path: str,
) -> Tests:
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
        f'{path}: is of {key}={found}, the run of {key}={expected}'
      )
  config = _feasible(config, network)
  version = os.path.abspath(path)
  if network.is_tflite:
    name, _ = os.path.splitext(os.path.basename(version))
    version = f'{os.path.dirname(version)}-{name}'
  folder = os.path.join(model_dir, 'exported', os.path.basename(version))
  tests = Tests(config, strategy, network, folder)
  tests.plain(network.facts['step'], network.facts['weights'])
  tests.named(network.facts['step'], network.digest, network.facts['weights'])
  return tests


def _feasible(
  config: config_lib.Config, network: exported_network.ExportedNetwork
) -> config_lib.Config:
  """The run without the tests that an exported file cannot take."""
  tests = {}
  for name, test in config.eval.tests.items():
    side = image_sets.STORED_SIDES.get(test.kind, network.image_size)
    reason = ''
    if test.domain != config_lib.MAIN_DOMAIN:
      reason = f'has no norms {test.domain}'
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
