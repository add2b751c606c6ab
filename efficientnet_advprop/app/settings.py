"""Which recipe applies, and what the command line changes of it."""

from collections.abc import Sequence
import os
from typing import Any, Optional

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import paths
from efficientnet_advprop.config import recipes
from efficientnet_advprop.data import sources


def resolve_config(
  model_dir: Optional[str] = None,
  config_file: Optional[str] = None,
  model_name: Optional[str] = None,
  data_dir: Optional[str] = None,
  overrides: Sequence[str] = (),
) -> config_lib.Config:
  """Finds the recipe that applies and changes it as asked.

  The recipe is `config_file`, else that of the run in `model_dir`, else the
  paper's for the model. Without `data_dir`, or with an empty one, the embedded
  data set takes the place of ImageNet, with a schedule of its size. Numbers of
  classes and images that nobody gives are those of the data.

  Raises:
    ConfigError: a value is not allowed.
    DataError: data that have to be counted cannot be used.
  """
  saved = os.path.join(model_dir or '', paths.CONFIG)
  if config_file:
    values = recipes.read_yaml(paths.config_file(config_file))
    if model_dir and tf.io.gfile.exists(saved):
      values = _keep_target(values, saved)
  elif model_dir and tf.io.gfile.exists(saved):
    values = recipes.read_yaml(saved)
  else:
    values = _default_recipe(model_name, data_dir, overrides)
  if model_name:
    values = recipes.apply_overrides(values, [f'model.name={model_name}'])
  if data_dir is not None:
    values = recipes.merge(values, {'data': {'dir': data_dir}})
  values = recipes.apply_overrides(values, overrides)
  return sources.resolved(config_lib.from_dict(values))


def note_on_data(config: config_lib.Config) -> Optional[str]:
  """Returns what a run on the embedded data says of itself, or None.

  The work of a step grows with the square of the width, with the depth and with
  the passes: 3 for each image that is trained on, 2 for each attack step.
  """
  if config.data.dir:
    return None
  demo = config_lib.load_config(paths.recipe('demo'))
  factor = _work(config) / _work(demo)
  note = (
    f'No --data_dir: training on the embedded data set of'
    f' {config.data.num_train_images} drawings'
  )
  if factor > 4:
    note += (
      f', at about {factor:.0f} times the cost of hparams/demo.yaml, which'
      ' takes minutes on two cores'
    )
  return note


def _work(config: config_lib.Config) -> float:
  model = config.model
  size = model.image_size / model.stem_stride
  passes = 3 * (1 + len(config.auxiliary_domains))
  if config.train.method != 'vanilla':
    passes += 2 * config.attack.num_steps
  scale = model.width_coefficient**2 * model.depth_coefficient
  return scale * size**2 * passes * config.train.epochs


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
  model_name: Optional[str],
  data_dir: Optional[str],
  overrides: Sequence[str],
) -> dict[str, Any]:
  model_name = model_name or config_lib.MODEL_NAMES[0]
  config_lib.check_choice('model_name', model_name, config_lib.MODEL_NAMES)
  paper = recipes.read_yaml(paths.recipe(f'imagenet/{model_name}'))
  if data_dir:
    if _may_be_imagenet(paper, data_dir, overrides):
      return paper
    logging.info(
      'The classes of %s are not those of ImageNet: using the schedule of'
      ' hparams/photos.yaml; --config_file names another one.',
      data_dir,
    )
    photos = recipes.read_yaml(paths.recipe('photos'))
    return {**photos, 'model': paper['model'], 'attack': paper['attack']}
  demo = recipes.read_yaml(paths.recipe('demo'))
  # The network and the attack stay the paper's; what is given for small images
  # stays the demo's.
  network = {k: demo['model'][k] for k in ('image_size', 'stem_stride')}
  return {
    **demo,
    'model': {**paper['model'], **network},
    'attack': paper['attack'],
  }


def _may_be_imagenet(
  paper: dict[str, Any], data_dir: str, overrides: Sequence[str]
) -> bool:
  """Returns whether data have as many classes as the paper's, if known."""
  values = recipes.apply_overrides({'data': {'dir': data_dir}}, overrides)
  data = config_lib.from_dict({'data': values['data']}).data
  found = data.num_classes or sources.num_classes(data)
  return found in (None, paper['data']['num_classes'])
