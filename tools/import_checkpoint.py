r"""Imports published EfficientNet weights as a run of ours.

  .venv/bin/python tools/import_checkpoint.py \
      --checkpoint=/path/to/efficientnet-b0 \
      --model_name=efficientnet-b0 --model_dir=runs/imported

The checkpoint is in TensorFlow 1's format, as the official EfficientNet and
AdvProp checkpoints are, or a Keras weights file (.h5) of keras.applications'
EfficientNetB0 to B7. Afterwards `main.py --mode=eval` and `--mode=export` work
on the model_dir, and training starts from the weights.

AdvProp's weights expect pixels in [-1, 1]. Other official checkpoints need
--params_override=model.normalization=imagenet; a .h5 file is taken so anyway.

Only numbers are read, by their names; no code in a file is ever run. Every
variable of the network must be found, and every number in the file be of use.
"""

from collections.abc import Mapping, Sequence
import os
import re
import shutil
import sys
import tempfile
from typing import cast

from absl import app
from absl import flags
import h5py
import numpy as np

# TensorFlow's own start-up notes would bury what a user wants to read.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
# A script finds the package only beside its own folder.
sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import program
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import paths
from efficientnet_advprop.config import recipes
from efficientnet_advprop.layers import normalization
from efficientnet_advprop.layers.normalization import NORM_VARIABLES
from efficientnet_advprop.models import efficientnet
from efficientnet_advprop.models import factory
from efficientnet_advprop.training import optimization
from efficientnet_advprop.weights import checkpoints

import tensorflow as tf  # isort: skip

_FLAGS = program.flag_values(__name__)
_CHECKPOINT = flags.DEFINE_string(
  'checkpoint',
  None,
  'A TF1 checkpoint, without suffix, or a .h5 file.',
  flag_values=_FLAGS,
)
_MODEL_NAME = flags.DEFINE_enum(
  'model_name',
  None,
  [name for name in config_lib.MODEL_NAMES if name.startswith('efficientnet')],
  'The network.',
  flag_values=_FLAGS,
)
_MODEL_DIR = flags.DEFINE_string(
  'model_dir', None, 'The run to create.', flag_values=_FLAGS
)
_OVERRIDES = flags.DEFINE_string(
  'params_override',
  '',
  'Changes to the recipe: data.num_classes=10',
  flag_values=_FLAGS,
)
_EMA_SUFFIX = '/ExponentialMovingAverage'
# Of a training run's state, or TensorFlow 2's list of objects: not weights.
_SLOTS = re.compile(
  r'(^|/)(global_step|RMSProp(_\d+)?|Momentum|_CHECKPOINTABLE_OBJECT_GRAPH)$'
)
# What an auxiliary norm adds to the name of the main norm beside it.
_AUXILIARY_SUFFIX = '_aux'
Values = Mapping[str, np.ndarray]
Names = dict[str, tf.Variable]


# --- Names ------------------------------------------------------------------


def _of_norm(
  name: str, norm: normalization.AuxBatchNormalization, domain: str
) -> Names:
  variables = norm.norm_of(domain)
  return {f'{name}/{v}': getattr(variables, v) for v in NORM_VARIABLES}


def official_names(
  model: efficientnet.EfficientNet, domain: str = config_lib.MAIN_DOMAIN
) -> Names:
  """The names of a network's variables in official checkpoints.

  Without the network's name in front, and with `batch_normalization` for the
  norms, which TPU code calls `tpu_batch_normalization`.

  Args:
    model: the network.
    domain: whose norms; an auxiliary one has the suffix `_aux`.
  """
  suffix = '' if domain == config_lib.MAIN_DOMAIN else _AUXILIARY_SUFFIX

  def indexed(name: str, index: int) -> str:
    return name if index == 0 else f'{name}_{index}'

  def norm_names(scope: str, index: int, layer: tf.keras.layers.Layer) -> Names:
    name = indexed('batch_normalization', index) + suffix
    return _of_norm(f'{scope}/{name}', layer.norm, domain)

  names: Names = {}
  for scope, layer in (('stem', model.stem), ('head', model.head)):
    names[f'{scope}/conv2d/kernel'] = layer.kernel
    names.update(norm_names(scope, 0, layer))
  for number, block in enumerate(model.blocks):
    scope = f'blocks_{number}'
    first = 0 if block.expand is None else 1
    if block.expand is not None:
      names[f'{scope}/conv2d/kernel'] = block.expand.kernel
      names.update(norm_names(scope, 0, block.expand))
    depthwise = f'{scope}/depthwise_conv2d/depthwise_kernel'
    names[depthwise] = block.depthwise.kernel
    names.update(norm_names(scope, first, block.depthwise))
    project = indexed('conv2d', first)
    names[f'{scope}/{project}/kernel'] = block.project.kernel
    names.update(norm_names(scope, first + 1, block.project))
    gates = (block.excite.reduce, block.excite.expand)
    for name, layer in zip(('conv2d', 'conv2d_1'), gates):
      names[f'{scope}/se/{name}/kernel'] = layer.kernel
      names[f'{scope}/se/{name}/bias'] = layer.bias
  names['head/dense/kernel'] = model.classifier.kernel
  names['head/dense/bias'] = model.classifier.bias
  return names


def keras_names(model: efficientnet.EfficientNet) -> Names:
  """The names of a network's variables in keras.applications."""
  main = config_lib.MAIN_DOMAIN
  names: Names = {}
  for name, layer in (('stem', model.stem), ('top', model.head)):
    names[f'{name}_conv/kernel'] = layer.kernel
    names.update(_of_norm(f'{name}_bn', layer.norm, main))
  depth = model.model_config.depth_coefficient
  blocks = iter(model.blocks)
  for number, stage in enumerate(efficientnet.STAGES, 1):
    for repeat in range(efficientnet.round_repeats(stage.repeats, depth)):
      block, name = next(blocks), f'block{number}{chr(ord("a") + repeat)}_'
      if block.expand is not None:
        names[f'{name}expand_conv/kernel'] = block.expand.kernel
        names.update(_of_norm(f'{name}expand_bn', block.expand.norm, main))
      names[f'{name}dwconv/depthwise_kernel'] = block.depthwise.kernel
      names.update(_of_norm(f'{name}bn', block.depthwise.norm, main))
      names[f'{name}project_conv/kernel'] = block.project.kernel
      names.update(_of_norm(f'{name}project_bn', block.project.norm, main))
      gates = ('reduce', block.excite.reduce), ('expand', block.excite.expand)
      for gate, layer in gates:
        names[f'{name}se_{gate}/kernel'] = layer.kernel
        names[f'{name}se_{gate}/bias'] = layer.bias
  names['predictions/kernel'] = model.classifier.kernel
  names['predictions/bias'] = model.classifier.bias
  return names


# --- Reading ----------------------------------------------------------------


def read_official(path: str) -> tuple[Values, Values]:
  """Reads a TF1 checkpoint.

  Args:
    path: without the suffixes of its files, or its folder, or that of a
      SavedModel, whose graph is not loaded.

  Returns:
    Raw and averaged values by their official names. If the file holds only one
    of them, it stands for both.

  Raises:
    CheckpointError: the file is missing or damaged.
  """
  raw: dict[str, np.ndarray] = {}
  averaged: dict[str, np.ndarray] = {}
  try:
    is_saved_model = os.path.exists(os.path.join(path, 'saved_model.pb'))
    files = os.path.join(path, 'variables', 'variables')
    reader = tf.train.load_checkpoint(files if is_saved_model else path)
    for name in reader.get_variable_to_shape_map():
      is_average = name.endswith(_EMA_SUFFIX)
      plain = name[: -len(_EMA_SUFFIX)] if is_average else name
      if _SLOTS.search(plain):
        continue
      plain = plain.partition('/')[2] or plain
      plain = plain.replace('tpu_batch_norm', 'batch_norm')
      values = averaged if is_average else raw
      values[plain] = np.asarray(reader.get_tensor(name), np.float32)
  except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
    reason = (str(error).splitlines() or ['damaged'])[0]
    raise errors.CheckpointError(f'{path}: cannot be read: {reason}') from error
  return raw or averaged, averaged or raw


def read_keras(path: str) -> Values:
  """Reads the numbers of a Keras .h5 file by `<layer>/<variable>`.

  Raises:
    CheckpointError: the file is missing, damaged or of another kind.
  """
  values: dict[str, np.ndarray] = {}

  def visit(name: str, item: object) -> None:
    parts = name.split('/')
    if not isinstance(item, h5py.Dataset) or parts[0] == 'optimizer_weights':
      return
    key = '/'.join(parts[-2:]).partition(':')[0]
    if item.dtype.kind not in 'fiu':
      raise ValueError(f'{name} holds no numbers')
    if item.external or item.is_virtual:
      raise ValueError(f'{name} lies in another file')
    # The normalization of pixels is `model.normalization`.
    if not key.startswith('normalization'):
      values[key] = np.asarray(item[()], np.float32)

  try:
    with h5py.File(path, 'r') as file:
      file.visititems(visit)
  except (OSError, ValueError, RuntimeError, KeyError) as error:
    reason = (str(error).splitlines() or ['damaged'])[0]
    raise errors.CheckpointError(f'{path}: cannot be read: {reason}') from error
  return values


# --- Converting -------------------------------------------------------------


def _fill(
  model: efficientnet.EfficientNet, values: Values, source: str
) -> None:
  """Gives a network the values, and the norms that they lack those of main."""
  names = keras_names(model) if _is_keras(source) else official_names(model)
  has_auxiliary = any(f'{_AUXILIARY_SUFFIX}/' in name for name in values)
  if has_auxiliary:
    for domain in model.auxiliary_domains:
      names.update(official_names(model, domain))
  checkpoints.assign(names, values, source)
  if not has_auxiliary:
    for domain in model.auxiliary_domains:
      normalization.copy_main_norm(model, domain)


def _is_keras(source: str) -> bool:
  return source.endswith('.h5')


def import_checkpoint(
  source: str, model_name: str, model_dir: str, overrides: Sequence[str] = ()
) -> config_lib.Config:
  """Writes `config.yaml` and `checkpoints/ckpt-0` of a new run.

  Args:
    source: a TF1 checkpoint, or a .h5 file.
    model_name: the network; its recipe is the paper's.
    model_dir: of the run.
    overrides: changes to the recipe, `section.key=value`. Unless one of them
      sets `model.normalization`, it is `imagenet` for a .h5 file, else
      `advprop`.

  Returns:
    The run's configuration.

  Raises:
    CheckpointError: the source cannot be read or is of another network, or
      model_dir holds a run. Nothing is left behind.
    ConfigError: an override is not allowed.
    OSError: model_dir cannot be written to. Nothing is left behind.
  """
  if os.path.exists(
    os.path.join(model_dir, paths.CONFIG)
  ) or checkpoints.checkpoint_paths(os.path.join(model_dir, paths.CHECKPOINTS)):
    raise errors.CheckpointError(f'{model_dir}: holds a run already')
  recipe = paths.recipe(f'imagenet/{model_name}')
  if _is_keras(source):
    overrides = ('model.normalization=imagenet', *overrides)
    values = [read_keras(source)] * 2
  else:
    values = list(read_official(source))
  config = config_lib.load_config(recipe, overrides)
  networks = []
  for part in values:
    networks.append(
      factory.create_model(
        config.model, config.data.num_classes, config.auxiliary_domains
      )
    )
    _fill(networks[-1], part, source)
  checkpoint = tf.train.Checkpoint(
    model=networks[0],
    ema=networks[1],
    optimizer=optimization.create_optimizer(config, networks[0]),
  )
  _write_run(config, checkpoint, model_dir)
  return config


def _write_run(
  config: config_lib.Config, checkpoint: tf.train.Checkpoint, model_dir: str
) -> None:
  """Writes a run beside its place, and moves it there when it is whole."""
  is_new = not os.path.exists(model_dir)
  os.makedirs(model_dir, exist_ok=True)
  try:
    with tempfile.TemporaryDirectory(dir=model_dir) as folder:
      path = os.path.join(folder, paths.CHECKPOINTS)
      checkpoints.CheckpointManager(checkpoint, path, keep=1).save(0)
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


def main(_: list[str]) -> None:
  """Runs the import; an error ends in one line and exit code 2."""
  try:
    import_checkpoint(
      # None is refused when the flags are parsed.
      cast(str, _CHECKPOINT.value),
      cast(str, _MODEL_NAME.value),
      cast(str, _MODEL_DIR.value),
      recipes.parse_overrides(_OVERRIDES.value),
    )
  except (OSError, ValueError) as error:
    program.fail('import_checkpoint', error)
  print(f'Imported into {_MODEL_DIR.value}; now main.py --model_dir of it.')


if __name__ == '__main__':
  flags.mark_flags_as_required(['checkpoint', 'model_name', 'model_dir'])
  app.run(main, flags_parser=program.parser('import_checkpoint', _FLAGS))
