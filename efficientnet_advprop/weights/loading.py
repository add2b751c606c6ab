"""Fills a network with weights: everything is used, or one line says what not.

Weights are numbers by their places in a network: the attributes that lead to a
variable, joined by slashes, as checkpoints of runs name it.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
import dataclasses
from typing import Any, Optional

from absl import logging
import numpy as np
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.config import architectures
from efficientnet_advprop.layers import normalization
from efficientnet_advprop.models import factory
from efficientnet_advprop.weights import checkpoints
from efficientnet_advprop.weights import names
from efficientnet_advprop.weights import readers

Values = Mapping[str, np.ndarray]

# So many names may differ by a fault of one file; more mean another network.
_FEW = 4
# Settings that decide on the variables of a network.
_SHAPING = ('name', 'width_coefficient', 'depth_coefficient', 'stem_stride')


def restored(
  config: config_lib.Config,
  checkpoint: str,
  weights: str = 'ema',
  auxiliary_domains: Optional[Sequence[str]] = None,
  compiled: bool = False,
) -> tuple[tf.keras.Model, int]:
  """Creates the network of a run with the weights of a checkpoint.

  Args:
    config: of the run.
    checkpoint: as `restore` takes it.
    weights: `'ema'`, the moving average of the weights, or `'raw'`.
    auxiliary_domains: whose norms the network has; None for the run's own.
    compiled: whether XLA compiles activations where it may run.

  Returns:
    The network, and the step after which the checkpoint was written.

  Raises:
    CheckpointError: as `restore` raises it.
  """
  if auxiliary_domains is None:
    auxiliary_domains = config.auxiliary_domains
  model = factory.create_model(
    config.model,
    config.data.num_classes,
    auxiliary_domains,
    compiled=compiled,
  )
  return model, restore(model, checkpoint, weights)


def restore(
  model: tf.keras.Model, checkpoint: str, weights: str = 'ema'
) -> int:
  """Restores the weights of a network from a training checkpoint.

  Args:
    model: with all, some or none of the auxiliary domains that the checkpoint
      holds.
    checkpoint: a model_dir, its `checkpoints` folder, or the path of one
      checkpoint without the suffixes of its files.
    weights: `'ema'`, the moving average of the weights, or `'raw'`.

  Returns:
    The step after which the checkpoint was written.

  Raises:
    CheckpointError: there is none, all are damaged, or it is of another
      network; one line names the setting that differs. The network is as it
      was.
  """
  config_lib.check_choice('weights', weights, ('ema', 'raw'))
  values, step = checkpoints.read(checkpoint, weights)
  variables = variables_by_place(model)
  assign(
    variables,
    without_other_domains(values, variables),
    checkpoint,
    difference(model, variables, values, checkpoint),
  )
  return step


def places(model: tf.keras.Model) -> dict[str, Any]:
  """The parts of a network by their places, as checkpoints name them.

  A checkpoint names a part by the attributes that lead to it, on the shortest
  way, joined by slashes.
  """
  view = tf.train.TrackableView(model)
  result: dict[str, Any] = {}
  seen, queue = {id(model)}, collections.deque([('', model)])
  while queue:
    prefix, part = queue.popleft()
    for name, child in view.children(part).items():
      if id(child) not in seen:
        seen.add(id(child))
        result[prefix + name] = child
        queue.append((f'{prefix}{name}/', child))
  return result


def variables_by_place(model: tf.keras.Model) -> dict[str, tf.Variable]:
  """The variables of a network by their places."""
  return {
    place: part
    for place, part in places(model).items()
    if isinstance(part, tf.Variable)
  }


def norms(model: tf.keras.Model) -> list[str]:
  """The places of all norms that have auxiliary domains or could have them."""
  return [
    place
    for place, layer in places(model).items()
    if isinstance(layer, normalization.AuxBatchNormalization)
  ]


def within(folders: Iterable[str], among: Iterable[str]) -> set[str]:
  """The places of `among` that are below one of the folders."""
  prefixes = tuple(f'{place}/' for place in folders)
  return {place for place in among if place.startswith(prefixes)}


def without_other_domains(
  values: Values, variables: Mapping[str, tf.Variable]
) -> Values:
  """Leaves out the norms of auxiliary domains that a network does not have."""
  return {
    place: value
    for place, value in values.items()
    if place in variables or '/auxiliary/' not in place
  }


def assign(
  variables: Mapping[str, tf.Variable],
  values: Values,
  source: str,
  hint: str = '',
) -> None:
  """Gives each variable its value.

  Args:
    variables: by their names.
    values: by the same names.
    source: where they come from, for messages.
    hint: why they may not fit, for messages.

  Raises:
    CheckpointError: a value is missing, unexpected or of another shape. No
      variable has changed.
  """
  problems = _name_problems(
    set(variables) - set(values), set(values) - set(variables)
  )
  for name in sorted(set(variables) & set(values)):
    found, expected = values[name].shape, tuple(variables[name].shape)
    if found != expected:
      problems.append(f'{name} has the shape {found}, not {expected}')
      break
  if problems:
    raise _misfit(source, [*problems, *filter(None, [hint])])
  for name, variable in variables.items():
    variable.assign(values[name])


def _name_problems(missing: set[str], unexpected: set[str]) -> list[str]:
  problems = []
  for title, found in (('missing', missing), ('unexpected', unexpected)):
    if found:
      more = f' and {len(found) - 1} more' if len(found) > 1 else ''
      problems.append(f'{title} {min(found)[:80]}{more}')
  return problems


def _misfit(source: str, problems: list[str]) -> errors.CheckpointError:
  return errors.CheckpointError(
    f'{source}: not the weights of this network: {"; ".join(problems)}'
  )


def difference(
  model: tf.keras.Model,
  variables: Mapping[str, tf.Variable],
  values: Values,
  run: Optional[str],
) -> str:
  """Why values may not be those of a network, or an empty text.

  Args:
    model: the network.
    variables: of the network, by their places.
    values: by their places.
    run: the run that the values come from, whose `config.yaml` says how its
      network differs; None for published weights.
  """
  reasons = []
  own = dataclasses.asdict(model.model_config)
  theirs = checkpoints.run_settings(run) if run else {}
  for key in _SHAPING:
    if key in theirs and theirs[key] != own[key]:
      reasons.append(
        f'there model.{key} is {theirs[key]}, here it is {own[key]}'
      )
  bias = 'classifier/bias'
  if bias in values and bias in variables:
    there, here = values[bias].size, variables[bias].shape[0]
    if there != here:
      reasons.append(f'there are {there} classes there and {here} here')
  folders = {place.rpartition('/')[0] for place in values}
  for domain in model.auxiliary_domains:
    if not any(f.endswith(f'/auxiliary/{domain}') for f in folders):
      reasons.append(f'it has no norms of the domain {domain}')
  is_wider = any(
    place in variables and value.shape != tuple(variables[place].shape)
    for place, value in values.items()
    if not place.startswith('classifier/')
  )
  is_deeper = {p.split('/')[1] for p in values if p.startswith('blocks/')} != {
    p.split('/')[1] for p in variables if p.startswith('blocks/')
  }
  if not reasons and (is_wider or is_deeper):
    reasons.append('width or depth differ')
  return '; '.join(reasons)


def by_place(
  model: tf.keras.Model, weights: readers.Weights, raw: bool = False
) -> Values:
  """Published weights by their places in a network, in our layout.

  Args:
    model: the network.
    weights: as `readers.read` returns them.
    raw: whether to take the values that are not averaged.

  Raises:
    CheckpointError: the weights are of another family of networks, or a name
      is missing or unexpected; one line lists both.
  """
  values = weights.raw if raw else weights.average
  naming = weights.naming
  if naming is None:
    return values
  settings = model.model_config
  if naming.family != settings.architecture.family:
    raise errors.CheckpointError(
      f'{weights.source}: holds {naming.title}, not weights of {settings.name}'
    )
  table = naming.table(model)
  suffix = f'{names.AUXILIARY_SUFFIX}/'
  if naming.table is names.official and any(suffix in name for name in values):
    for domain in model.auxiliary_domains:
      table.update(names.official(model, domain))
  missing, unexpected = set(table) - set(values), set(values) - set(table)
  if missing or unexpected:
    problems = _name_problems(missing, unexpected)
    if len(missing) + len(unexpected) > _FEW:
      problems.append(f'is it of another network than {settings.name}?')
    raise _misfit(weights.source, problems)
  result: dict[str, np.ndarray] = {}
  for name, (place, axes) in table.items():
    value = values[name]
    # `assign` reports a number of axes that is wrong as a wrong shape.
    fits = axes is not None and value.ndim == len(axes)
    result[place] = value.transpose(axes) if fits else value
  return result


def check_classes(model: tf.keras.Model, weights: readers.Weights) -> None:
  """Refuses weights for another number of classes than a network has.

  Raises:
    CheckpointError: states both numbers, or why the weights do not fit.
  """
  bias = by_place(model, weights)['classifier/bias']
  classes = model.classifier.bias.shape[0]
  if bias.shape != (classes,):
    raise errors.CheckpointError(
      f'{weights.source}: has {bias.size} classes, and data.num_classes is'
      f' {classes}; to fine-tune, train with train.init_checkpoint of it'
    )


def expected_pixels(
  weights: readers.Weights, architecture: architectures.Architecture
) -> str:
  """The `ModelConfig.normalization` that weights expect.

  The source may state it: a run's settings, or timm's `config.json` next to the
  file. Otherwise it is what the published weights of this kind usually expect.
  """
  if architecture.normalization == 'lite' and weights.naming is not None:
    return 'lite'
  if weights.pixels is not None:
    return weights.pixels
  return weights.naming.pixels if weights.naming else 'advprop'


def warn_of_pixels(model: tf.keras.Model, weights: readers.Weights) -> None:
  """Logs a warning if a network feeds weights with pixels of another range."""
  settings = model.model_config
  expected = expected_pixels(weights, settings.architecture)
  if expected != settings.normalization:
    logging.warning(
      '%s: such weights usually expect model.normalization=%s; this network has'
      ' %s',
      weights.source,
      expected,
      settings.normalization,
    )
