"""The modes of the command line: train, eval, train_and_eval and export."""

from collections.abc import Mapping, Sequence
import os
from typing import NamedTuple

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import devices
from efficientnet_advprop import execution
from efficientnet_advprop import export as export_lib
from efficientnet_advprop.app import evaluating
from efficientnet_advprop.app import readiness
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import paths
from efficientnet_advprop.evaluation import session as session_lib
from efficientnet_advprop.training import trainer as trainer_lib
from efficientnet_advprop.weights import checkpoints
from efficientnet_advprop.weights import loading


class Outcome(NamedTuple):
  """What a mode has found.

  Attributes:
    text: for the user.
    failures: what failed at the end of the run, in a line each; everything else
      is done.
  """

  text: str
  failures: tuple[str, ...] = ()

  @property
  def exit_code(self) -> int:
    """0, or `EXIT_INCOMPLETE` if something failed."""
    return errors.EXIT_INCOMPLETE if self.failures else 0


def train(
  config: config_lib.Config, strategy: tf.distribute.Strategy, model_dir: str
) -> None:
  """Trains a run, or resumes the one that `model_dir` holds."""
  trainer = trainer_lib.Trainer(config, strategy, model_dir)
  _start(trainer, config)
  trainer.train()


def train_and_eval(
  config: config_lib.Config,
  strategy: tf.distribute.Strategy,
  model_dir: str,
  export_dir: str,
) -> Outcome:
  """Trains with evaluations on the way, runs all tests, exports.

  What the end needs is checked before the first step. A test or an export that
  fails all the same does not keep the rest from happening.

  Returns:
    The results as a table, where everything is, and what failed.
  """
  if devices.is_chief(strategy):
    readiness.check_export(config, export_dir)
  trainer = trainer_lib.Trainer(config, strategy, model_dir)
  raw = config.eval.weights == 'raw'
  network = trainer.model if raw else trainer.average
  session = session_lib.Session(config, strategy, network, model_dir)
  session.check_tests()
  _start(trainer, config)

  def evaluate(step: int) -> dict[str, float]:
    result = session.run_plain(step)
    return {k: v for k, v in result.items() if isinstance(v, float)}

  trainer.train(evaluate)  # The last step is evaluated, too.
  step = trainer.step
  checkpoint = paths.evaluated_checkpoint(model_dir, config.eval.checkpoint)
  if config.eval.checkpoint == 'best':
    step = loading.restore(network, checkpoint, config.eval.weights)
    session.run_plain(step)
  session.run_named(step, checkpoints.digest(network))
  places = {'checkpoint': os.path.join(model_dir, paths.CHECKPOINTS)}
  places['TensorBoard'] = os.path.join(model_dir, paths.SUMMARIES)
  picture = trainer.draw_attack()
  if picture:
    places['picture'] = picture
  failures = _failed_tests(session)
  if trainer.is_chief:
    try:
      exported = export_lib.export(config, checkpoint, export_dir)
      places['SavedModel'] = exported.version
    except (errors.DataError, errors.ExportError) as error:
      logging.error('The export failed: %s', error)
      failures.append(f'The export failed: {error}')
  places['tests'] = session.report_path
  return _outcome(session, places, failures)


def evaluate(
  config: config_lib.Config, strategy: tf.distribute.Strategy, model_dir: str
) -> Outcome:
  """Evaluates `eval.network`: the plain test, then the named ones.

  Returns:
    The results as a table, where the report is, and which tests failed.
  """
  session = evaluating.run(config, strategy, model_dir)
  places = {'tests': session.report_path}
  return _outcome(session, places, _failed_tests(session))


def _failed_tests(session: session_lib.Session) -> list[str]:
  return [
    f'The test {name} failed: {why}' for name, why in session.failures.items()
  ]


def _outcome(
  session: session_lib.Session,
  places: Mapping[str, str],
  failures: Sequence[str],
) -> Outcome:
  text = _join(session.table(), places)
  if failures:
    text = '\n'.join([text, '', *failures])
  return Outcome(text, tuple(failures))


def export(
  config: config_lib.Config, model_dir: str, export_dir: str
) -> Outcome:
  """Exports the checkpoint that `eval.checkpoint` names.

  Returns:
    How well the files agree with the network, and where they are.
  """
  checkpoint = paths.evaluated_checkpoint(model_dir, config.eval.checkpoint)
  exported = export_lib.export(config, checkpoint, export_dir)
  places = {'SavedModel': exported.version, 'report': exported.report_path}
  places.update(exported.files)
  return Outcome(_join(exported.agreement.text(), places))


def _start(trainer: trainer_lib.Trainer, config: config_lib.Config) -> None:
  """Says what starts, once there is space for it.

  Raises:
    CheckpointError: there is no space for a checkpoint.
  """
  readiness.check_space(trainer)
  parameters = sum(
    variable.shape.num_elements()
    for variable in trainer.model.trainable_variables
  )
  logging.info(
    '%s by %s: %.2fM parameters, %d steps of %d images on %d replica(s)',
    config.model.name,
    config.train.method,
    parameters / 1e6,
    config.train_steps,
    config.train.batch_size,
    trainer.strategy.num_replicas_in_sync,
  )
  logging.info(
    'Running on %s', execution.describe(trainer.strategy, trainer.execution)
  )
  if trainer.restored:
    logging.info('Resuming from %s', trainer.restored)


def _join(text: str, places: Mapping[str, str]) -> str:
  """Joins a text and the places of all files."""
  width = max(map(len, places), default=0)
  lines = [f'{name:{width}}  {place}' for name, place in places.items()]
  return '\n'.join([text, *([''] if lines else []), *lines])
