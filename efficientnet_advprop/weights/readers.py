"""Reads weights of every kind as numbers by their names.

The kind of a file is told from its content, never from its name. Only numbers
are read; no code in a file is ever run.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import json
import os
import re
from typing import Any, NamedTuple, Optional

import h5py
import numpy as np
import tensorflow as tf

from efficientnet_advprop.base import errors
from efficientnet_advprop.weights import checkpoints
from efficientnet_advprop.weights import names
from efficientnet_advprop.weights import safetensors
from efficientnet_advprop.weights import state_dicts

Values = Mapping[str, np.ndarray]

_HUB = 'timm/'
_HUB_FILE = 'model.safetensors'
_HDF5 = b'\x89HDF\r\n\x1a\n'
_EMA_SUFFIX = '/ExponentialMovingAverage'
# A training run's state, or TensorFlow 2's list of objects: not weights.
_SLOTS = re.compile(
  r'(^|/)(global_step|RMSProp(_\d+)?|Momentum|_CHECKPOINTABLE_OBJECT_GRAPH)$'
)
# PyTorch's count of the batches that a norm has seen; no network needs it.
_COUNT_SUFFIX = '.num_batches_tracked'
# Mean and deviation of pixels in [0, 1], as timm's `config.json` has them.
_PIXELS = {
  ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)): 'advprop',
  ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)): 'imagenet',
}


class Weights(NamedTuple):
  """What a source of weights holds.

  Attributes:
    source: as the user gave it.
    naming: how the names are those of a network; None for a run of ours, whose
      names are the places in the network.
    average: the averaged values by their names.
    raw: the values that are not averaged. If a source has only one kind, it
      stands for both.
    pixels: the `ModelConfig.normalization` that the source states, or None.
  """

  source: str
  naming: Optional[names.Naming]
  average: Values
  raw: Values
  pixels: Optional[str]


def read(source: str) -> Weights:
  """Reads weights of any kind.

  Args:
    source: one of
      - a model_dir, its `checkpoints` folder or one checkpoint of a run;
      - a checkpoint of TensorFlow 1 without the suffixes of its files, its
        folder, or that of a SavedModel, whose graph is not loaded;
      - a Keras weights file (HDF5), a .safetensors file, or a state dict that
        `torch.save` has written;
      - `timm/<name>`, which the package huggingface_hub downloads.

  Raises:
    CheckpointError: nothing is there, or it is damaged or of another kind; one
      line.
  """
  path = _located(source)
  if _is_file(path):
    read_values, pixels = _file_kind(path), _stated_pixels(path)
    with _damage_named(source):
      raw = averaged = read_values(path)
  elif checkpoints.is_run(path):
    averaged, _ = checkpoints.read(path)
    pixels = checkpoints.run_settings(path).get('normalization')
    return Weights(source, None, averaged, averaged, pixels)
  else:
    pixels = None
    with _damage_named(source):
      raw, averaged = read_tensorflow_1(path)
  naming = names.find(averaged)
  if naming is None:
    first = min(averaged, default='nothing')
    titles = '; '.join(naming.title for naming in names.NAMINGS)
    raise errors.CheckpointError(
      f'{source}: holds {first[:80]} and so on, no weights that are known here:'
      f' {titles}; or a run of this project'
    )
  return Weights(source, naming, averaged, raw, pixels)


def _located(source: str) -> str:
  """The local path of a source, downloaded if it is one of the hub's."""
  if tf.io.gfile.isdir(source):
    inner = os.path.join(source, _HUB_FILE)
    return inner if tf.io.gfile.exists(inner) else source
  is_there = tf.io.gfile.exists(source) or tf.io.gfile.exists(f'{source}.index')
  if is_there or not source.startswith(_HUB):
    return source
  by_hand = (
    f'or get {_HUB_FILE} of https://huggingface.co/{source} by hand and give'
    ' its path'
  )
  try:
    import huggingface_hub  # An extra, which only this branch needs.
  except ImportError as error:
    raise errors.CheckpointError(
      f'{source}: needs the package huggingface_hub: install it, {by_hand}'
    ) from error
  try:
    # The file that says which pixels the weights expect.
    with contextlib.suppress(Exception):
      huggingface_hub.hf_hub_download(source, 'config.json')
    return huggingface_hub.hf_hub_download(source, _HUB_FILE)
  except Exception as error:  # Its errors have no common base.
    raise errors.CheckpointError(
      f'{source}: cannot be downloaded ({errors.first_line(error)}); check name'
      f' and network, {by_hand}'
    ) from error


def _is_file(path: str) -> bool:
  return tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path)


def _file_kind(path: str) -> Callable[[str], Values]:
  """The reader of a file, by its first bytes."""
  if not os.path.exists(path):
    raise errors.CheckpointError(f'{path}: copy this file to a local folder')
  with open(path, 'rb') as file:
    start = file.read(16)
  if start.startswith(_HDF5):
    return read_keras
  if safetensors.is_safetensors(start):
    return _read_safetensors
  if start.startswith((b'PK', b'\x80')):
    return _read_state_dict
  raise errors.CheckpointError(
    f'{path}: neither a safetensors file nor a state dict nor HDF5, by its'
    ' first bytes'
  )


def _read_safetensors(path: str) -> Values:
  return _without_counts(safetensors.read(path))


def _read_state_dict(path: str) -> Values:
  return _without_counts(state_dicts.read(path))


def _without_counts(values: Values) -> Values:
  return {
    name: np.asarray(value, np.float32)
    for name, value in values.items()
    if not name.endswith(_COUNT_SUFFIX)
  }


def _stated_pixels(path: str) -> Optional[str]:
  """The pixels that the `config.json` next to timm's files states."""
  place = os.path.join(os.path.dirname(path), 'config.json')
  try:
    with open(place, encoding='utf-8') as file:
      stated = json.load(file)['pretrained_cfg']
    return _PIXELS.get((tuple(stated['mean']), tuple(stated['std'])))
  except (OSError, ValueError, LookupError, TypeError):
    return None


@contextlib.contextmanager
def _damage_named(source: str) -> Iterator[None]:
  """Turns what reading raises into one line."""
  try:
    yield
  except errors.CheckpointError:
    raise
  except (
    tf.errors.OpError,
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    MemoryError,
  ) as error:
    raise errors.CheckpointError(
      f'{source}: cannot be read: {errors.first_line(error)}'
    ) from error


def read_tensorflow_1(path: str) -> tuple[Values, Values]:
  """Reads a checkpoint of TensorFlow 1.

  Args:
    path: without the suffixes of its files, or its folder, or that of a
      SavedModel.

  Returns:
    Raw and averaged values by their official names, without the network's name
    in front. If the file holds only one of them, it stands for both.

  Raises:
    tf.errors.OpError, ValueError, RuntimeError, IndexError: the checkpoint is
      missing or damaged.
  """
  raw: dict[str, np.ndarray] = {}
  averaged: dict[str, np.ndarray] = {}
  is_saved_model = tf.io.gfile.exists(os.path.join(path, 'saved_model.pb'))
  files = os.path.join(path, 'variables', 'variables')
  reader = tf.train.load_checkpoint(
    files if is_saved_model else _checkpoint_in(path)
  )
  for name in reader.get_variable_to_shape_map():
    is_average = name.endswith(_EMA_SUFFIX)
    plain = name[: -len(_EMA_SUFFIX)] if is_average else name
    if _SLOTS.search(plain):
      continue
    plain = plain.partition('/')[2] or plain
    plain = plain.replace('tpu_batch_norm', 'batch_norm')
    values = averaged if is_average else raw
    values[plain] = np.asarray(reader.get_tensor(name), np.float32)
  return raw or averaged, averaged or raw


def _checkpoint_in(path: str) -> str:
  """The checkpoint of a folder, or `path` itself if it is no folder."""
  if not tf.io.gfile.isdir(path):
    if not tf.io.gfile.exists(f'{path}.index'):
      raise ValueError('no file, run or checkpoint is there')
    return path
  suffix = '.index'
  found = [n for n in tf.io.gfile.listdir(path) if n.endswith(suffix)]
  newest = tf.train.latest_checkpoint(path)
  if newest is None and len(found) != 1:
    what = 'many checkpoints: name one' if found else 'no run or checkpoint'
    raise ValueError(f'this folder holds {what}')
  return newest or os.path.join(path, found[0][: -len(suffix)])


def read_keras(path: str) -> Values:
  """Reads the numbers of a Keras .h5 file by `<layer>/<variable>`.

  Raises:
    OSError, ValueError, RuntimeError, KeyError: the file is missing, damaged or
      of another kind.
  """
  values: dict[str, np.ndarray] = {}

  def visit(name: str, item: Any) -> None:
    parts = name.split('/')
    if not isinstance(item, h5py.Dataset) or parts[0] == 'optimizer_weights':
      return
    key = '/'.join(parts[-2:]).partition(':')[0]
    if item.dtype.kind not in 'fiu':
      raise ValueError(f'{name} holds no numbers')
    if item.external or item.is_virtual:
      raise ValueError(f'{name} refers to another file')
    # Compressed and unwritten numbers take less space than they claim, so that
    # a small file could fill any memory. Keras writes all and compresses none.
    if item.nbytes > item.id.get_storage_size():
      raise ValueError(f'{name} claims more bytes than the file has for it')
    # The normalization of pixels is `model.normalization`.
    if not key.startswith('normalization'):
      values[key] = np.asarray(item[()], np.float32)

  with h5py.File(path, 'r') as file:
    file.visititems(visit)
  return values
