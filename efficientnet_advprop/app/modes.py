"""The modes of main.py: train, eval, train_and_eval and export."""

from collections.abc import Mapping, Sequence
import os
from typing import Any, Optional

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import devices
from efficientnet_advprop import export as export_lib
from efficientnet_advprop.app import evaluating
from efficientnet_advprop.base import files
from efficientnet_advprop.base import paths
from efficientnet_advprop.config import recipes
from efficientnet_advprop.evaluation import session as session_lib
from efficientnet_advprop.training import trainer as trainer_lib
from efficientnet_advprop.weights import checkpoints

# What a run in a model_dir cannot change without becoming another run.
_IDENTITY = ('data.num_classes', 'train.method')


def resolve_config(
  model_dir: Optional[str] = None,
  config_file: Optional[str] = None,
  model_name: Optional[str] = None,
  data_dir: Optional[str] = None,
  overrides: Sequence[str] = (),
) -> config_lib.Config:
  """Finds the recipe that applies and changes it as asked.

  The recipe is `config_file`, else that of the run in `model_dir`, else the
  paper's for the model. Without `data_dir` the embedded data set takes the
  place of ImageNet, with a schedule of its size.

  Raises:
    ConfigError: a value is not allowed.
  """
  saved = os.path.join(model_dir or '', paths.CONFIG)
  if config_file:
    values = recipes.read_yaml(config_file)
    if model_dir and tf.io.gfile.exists(saved):
      values = _keep_target(values, saved)
  elif model_dir and tf.io.gfile.exists(saved):
    values = recipes.read_yaml(saved)
  else:
    values = _default_recipe(model_name, data_dir)
  if model_name:
    values = recipes.apply_overrides(values, [f'model.name={model_name}'])
  if data_dir:
    values.setdefault('data', {})['dir'] = data_dir
  return config_lib.from_dict(recipes.apply_overrides(values, overrides))


def _keep_target(values: dict[str, Any], saved: str) -> dict[str, Any]:
  """Adds the attack's target of a run that has begun, if the recipe has none.

  The default was `label` before it became `random`; the same command resumes an
  older run as what it was.
  """
  attack = recipes.read_yaml(saved).get('attack') or {}
  if 'target' not in attack:
    return values
  target = {'target': attack['target']}
  return {**values, 'attack': {**target, **(values.get('attack') or {})}}


def _default_recipe(
  model_name: Optional[str], data_dir: Optional[str]
) -> dict[str, Any]:
  model_name = model_name or config_lib.MODEL_NAMES[0]
  config_lib.check_choice('model_name', model_name, config_lib.MODEL_NAMES)
  paper = recipes.read_yaml(paths.recipe(f'imagenet/{model_name}'))
  if data_dir:
    return paper
  logging.info(
    'No --data_dir: using the embedded data set with the schedule of'
    ' hparams/demo.yaml; give --data_dir for the recipe of the paper.'
  )
  demo = recipes.read_yaml(paths.recipe('demo'))
  # The network and the attack stay the paper's; what is given for small images
  # stays the demo's.
  network = {k: demo['model'][k] for k in ('image_size', 'stem_stride')}
  return {
    **demo,
    'model': {**paper['model'], **network},
    'attack': paper['attack'],
  }


def check_model_dir(config: config_lib.Config, model_dir: str) -> None:
  """Raises ConfigError if `model_dir` holds the run of another network.

  A run that stopped before its first checkpoint, over wrong data for example,
  leaves nothing that another network could harm.
  """
  path = os.path.join(model_dir, paths.CONFIG)
  folder = os.path.join(model_dir, paths.CHECKPOINTS)
  if not (tf.io.gfile.exists(path) and checkpoints.checkpoint_paths(folder)):
    return
  saved = config_lib.to_dict(config_lib.load_config(path))
  for key, value in _flatten(config_lib.to_dict(config)).items():
    old = _flatten(saved).get(key)
    if value == old:
      continue
    if key in _IDENTITY or key.startswith('model.'):
      allowed = f'{old}, as in {path}, or another --model_dir'
      raise config_lib.ConfigError(key, value, allowed)
    logging.info('%s is now %s; it was %s in %s', key, value, old, path)


def _flatten(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  flat: dict[str, Any] = {}
  for key, value in values.items():
    if isinstance(value, Mapping):
      flat.update(_flatten(value, f'{prefix}{key}.'))
    else:
      flat[f'{prefix}{key}'] = value
  return flat


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
  if devices.is_chief(strategy):
    _make_writable(model_dir)
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


def _make_writable(model_dir: str) -> None:
  """Creates the model_dir, unless it is there, and tries to write into it.

  Otherwise a long start-up would come before the error.
  """
  probe = os.path.join(model_dir, 'probe.tmp')
  try:
    tf.io.gfile.makedirs(model_dir)
    with tf.io.gfile.GFile(probe, 'w') as file:
      file.write('A run was here.')
    tf.io.gfile.remove(probe)
  except tf.errors.OpError as error:
    allowed = f'a folder that can be written ({error.message})'
    raise config_lib.ConfigError('model_dir', model_dir, allowed) from error


def _join(text: str, places: Mapping[str, str]) -> str:
  """A text, and under it where everything lies."""
  width = max(map(len, places), default=0)
  lines = [f'{name:{width}}  {place}' for name, place in places.items()]
  return '\n'.join([text, *([''] if lines else []), *lines])
