"""The modes of the command line: train, eval, train_and_eval and export."""

from collections.abc import Mapping
import os

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import export as export_lib
from efficientnet_advprop.app import evaluating
from efficientnet_advprop.base import files
from efficientnet_advprop.base import paths
from efficientnet_advprop.evaluation import session as session_lib
from efficientnet_advprop.training import trainer as trainer_lib
from efficientnet_advprop.weights import checkpoints


def train(
  config: config_lib.Config, strategy: tf.distribute.Strategy, model_dir: str
) -> None:
  """Trains, or goes on where an earlier run in `model_dir` stopped."""
  _start(config, strategy, model_dir).train()


def train_and_eval(
  config: config_lib.Config,
  strategy: tf.distribute.Strategy,
  model_dir: str,
  export_dir: str,
) -> str:
  """Trains with evaluations on the way, runs all tests, exports.

  Returns:
    The results as a table, and where everything lies.
  """
  trainer = _start(config, strategy, model_dir)
  raw = config.eval.weights == 'raw'
  network = trainer.model if raw else trainer.average
  session = session_lib.Session(config, strategy, network, model_dir)

  def evaluate(step: int) -> None:
    result = session.run_plain(step)
    scores = {k: v for k, v in result.items() if isinstance(v, float)}
    trainer.write_scalars(step, scores, 'eval')

  trainer.train(evaluate)  # The last step is evaluated, too.
  session.run_named(trainer.step, checkpoints.digest(network))
  places = {'checkpoint': os.path.join(model_dir, paths.CHECKPOINTS)}
  places['TensorBoard'] = os.path.join(model_dir, paths.SUMMARIES)
  picture = trainer.draw_attack()
  if picture:
    places['picture'] = picture
  if trainer.is_chief:
    exported = export_lib.export(config, model_dir, export_dir)
    places['SavedModel'] = exported.version
  places['tests'] = session.report_path
  return _join(session.table(), places)


def evaluate(
  config: config_lib.Config, strategy: tf.distribute.Strategy, model_dir: str
) -> str:
  """Evaluates `eval.network`: the plain test, then the named ones.

  Returns:
    The results as a table, and where the report lies.
  """
  session = evaluating.run(config, strategy, model_dir)
  return _join(session.table(), {'tests': session.report_path})


def export(config: config_lib.Config, model_dir: str, export_dir: str) -> str:
  """Exports the newest checkpoint.

  Returns:
    How well the files agree with the network, and where they lie.
  """
  exported = export_lib.export(config, model_dir, export_dir)
  places = {'SavedModel': exported.version, 'report': exported.report_path}
  places.update(exported.files)
  return _join(exported.agreement.text(), places)


def _start(
  config: config_lib.Config, strategy: tf.distribute.Strategy, model_dir: str
) -> trainer_lib.Trainer:
  """Creates the trainer and writes the resolved config beside its files."""
  trainer = trainer_lib.Trainer(config, strategy, model_dir)
  if trainer.is_chief:
    files.write(
      os.path.join(model_dir, paths.CONFIG), config_lib.to_yaml(config)
    )
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
    strategy.num_replicas_in_sync,
  )
  if trainer.restored:
    logging.info('Resuming from %s', trainer.restored)
  return trainer


def _join(text: str, places: Mapping[str, str]) -> str:
  """A text, and under it where everything lies."""
  width = max(map(len, places), default=0)
  lines = [f'{name:{width}}  {place}' for name, place in places.items()]
  return '\n'.join([text, *([''] if lines else []), *lines])
