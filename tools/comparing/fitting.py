"""Accuracies of a network of keras.applications by method of `fit`."""

from collections.abc import Sequence
import datetime
import hashlib
import json
import os
import platform
import time
from typing import Any, NamedTuple

from absl import logging
import h5py
import numpy as np

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import progress
from efficientnet_advprop.evaluation import corruptions
from efficientnet_advprop.fit import advprop_model
from efficientnet_advprop.fit import setup

# Imported after the package, which selects Keras 2.
import tensorflow as tf  # isort: skip

_NUM_CLASSES = 10
_SEVERITY = 3
# The momentum of the norms. The networks' own 0.99 to 0.999 need more steps
# than a short run has.
_MOMENTUM = 0.9
# The share of the steps that the learning rate rises for.
_WARMUP = 0.1

# Vanilla training that computes as much as AdvProp does with one attack step:
# eight passes through the network instead of three.
LONG_VANILLA = 'long_vanilla'
LONGER = 8 / 3
CELLS = (
  *(method for method in setup.METHODS if method != 'fine_grained'),
  LONG_VANILLA,
)

Data = dict[str, tuple[np.ndarray, np.ndarray]]
Line = dict[str, Any]


class Setting(NamedTuple):
  """What all runs have in common."""

  network: str = 'MobileNetV2'  # Of keras.applications, with a width.
  width: float = 1.0  # Share of the published numbers of channels.
  weights: str = ''  # File that training starts from; empty: random ones.
  image_size: int = 64  # Height and width of the network's input, in pixels.
  train_images: int = 5000  # The first of the split.
  eval_images: int = 2000  # The first of the split; each is corrupted, too.
  epochs: int = 3
  batch_size: int = 32
  learning_rate: float = 1e-3  # Of Adam, at its peak.


def in_results(setting: Setting) -> dict[str, Any]:
  """Returns a setting as a file of results has it, without folders."""
  weights = setting.weights
  if weights:
    with open(weights, 'rb') as file:
      digest = hashlib.sha256(file.read()).hexdigest()
    weights = f'{os.path.basename(weights)}, SHA-256 {digest[:12]}...'
  return setting._replace(weights=weights)._asdict()


def load(folder: str, split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Reads images and labels of a split.

  Args:
    folder: of the TFRecords, in the ImageNet schema.
    split: `train` or `validation`.
    count: how many images at most.

  Returns:
    uint8 images and labels from 0.

  Raises:
    ConfigError: there are no such files.
  """
  paths = sorted(tf.io.gfile.glob(os.path.join(folder, f'{split}-*')))
  if not paths:
    raise config_lib.ConfigError('data_dir', folder, f'a folder of {split}-*')
  images, labels = [], []
  for record in tf.data.TFRecordDataset(paths).take(count):
    features = tf.train.Example.FromString(record.numpy()).features.feature
    encoded = features['image/encoded'].bytes_list.value[0]
    image = tf.io.decode_image(encoded, 3, expand_animations=False)
    images.append(image.numpy())
    labels.append(features['image/class/label'].int64_list.value[0] - 1)
  return np.array(images), np.array(labels)


def load_all(folder: str, setting: Setting) -> Data:
  """Returns images and labels of `train`, `clean` and each corruption."""
  logging.info('Reading %s', folder)
  clean = load(folder, 'validation', setting.eval_images)
  data = {'train': load(folder, 'train', setting.train_images), 'clean': clean}
  logging.info(
    'Corrupting %d images in %d ways', len(clean[0]), len(corruptions.NAMES)
  )
  for name in corruptions.NAMES:
    images = [
      corruptions.corrupt(image, name, _SEVERITY, 0, index)
      for index, image in enumerate(clean[0])
    ]
    data[name] = np.array(images), clean[1]
  return data


def load_weights(network: tf.keras.Model, path: str) -> None:
  """Gives every layer the weights of the layer of its name in a file.

  Args:
    network: a Functional network.
    path: of a Keras model or its weights in HDF5 (`.h5`), of Keras 2 or 3. It
      may hold further layers.

  Raises:
    ConfigError: the file lacks weights of the network, or of their shape.
  """
  found = {}

  def note(name: str, value: Any) -> None:
    parts = name.removesuffix(':0').split('/')
    # Keras 3 gives depthwise kernels the plain name.
    is_weight = isinstance(value, h5py.Dataset) and len(parts) > 1
    if is_weight and parts[0] != 'optimizer_weights':
      found[parts[-2], parts[-1].replace('depthwise_kernel', 'kernel')] = value

  with h5py.File(path) as file:
    file.visititems(note)
    for layer in network.layers:
      for weight in layer.weights:
        name = weight.name.split('/')[-1].split(':')[0]
        value = found.get((layer.name, name.replace('depthwise_', '')))
        if value is None or value.shape != weight.shape:
          raise config_lib.ConfigError(
            'weights',
            path,
            f'a file in which the layer {layer.name} has a {name} of the shape'
            f' {tuple(weight.shape)}',
          )
        weight.assign(value[()])


def build(setting: Setting) -> tf.keras.Model:
  """Builds a network behind resizing, for pixels of 0-255."""
  layers, size = tf.keras.layers, setting.image_size
  base = getattr(tf.keras.applications, setting.network)(
    input_shape=(size, size, 3),
    alpha=setting.width,
    include_top=False,
    weights=None,
    pooling='avg',
  )
  if setting.weights:
    load_weights(base, setting.weights)
  for layer in base.layers:
    if isinstance(layer, layers.BatchNormalization):
      layer.momentum = _MOMENTUM
  inputs = tf.keras.Input((None, None, 3))
  x = layers.Rescaling(1 / 127.5, -1)(inputs)
  x = base(layers.Resizing(size, size)(x))
  return tf.keras.Model(inputs, layers.Dense(_NUM_CLASSES)(x))


class _Progress(tf.keras.callbacks.Callback):
  """Logs how far a run is."""

  def __init__(self, name: str, epochs: int, batches: int, batch_size: int):
    super().__init__()
    self._name, self._epochs, self._size = name, epochs, batch_size
    self._total = epochs * batches * batch_size
    self._log = progress.Progress(f'{name}: images')
    self._done = 0

  def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
    self._done += self._size
    self._log(self._done, self._total)

  def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
    figures = '  '.join(f'{k} {v:.3f}' for k, v in (logs or {}).items())
    logging.info(
      '%s: epoch %d/%d  %s', self._name, epoch + 1, self._epochs, figures
    )


def run(cell: str, seed: int, data: Data, setting: Setting) -> Line:
  """Trains a network and evaluates it.

  Args:
    cell: one of `CELLS`.
    seed: of weights, batches and attacks.
    data: images and labels of `train`, `clean` and each corruption.
    setting: what all runs have in common.

  Returns:
    The accuracies in percent, `corrupted` being the mean over the corruptions,
    and what they came from.
  """
  tf.keras.utils.set_random_seed(seed)
  is_long = cell == LONG_VANILLA
  epochs = round(setting.epochs * (LONGER if is_long else 1))
  model = advprop_model.AdvPropModel(
    build(setting),
    config_lib.AttackConfig(epsilon=1),
    'vanilla' if is_long else cell,
    (0, 255),
    seed,
  )
  images, labels = data['train']
  steps = len(images) // setting.batch_size
  peak, rising = setting.learning_rate, int(_WARMUP * epochs * steps)
  schedule = tf.keras.optimizers.schedules.CosineDecay(
    peak / 50,
    epochs * steps - rising,
    warmup_target=peak,
    warmup_steps=rising,
  )
  model.compile(
    tf.keras.optimizers.Adam(schedule, epsilon=1e-5),
    tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=['accuracy'],
  )
  name = f'{cell}, seed {seed}'
  reporter = _Progress(name, epochs, steps, setting.batch_size)
  began = time.process_time()
  model.fit(
    _batches(images, labels, seed, setting.batch_size),
    epochs=epochs,
    verbose=0,
    callbacks=[reporter],
  )
  seconds = time.process_time() - began
  accuracies = {
    kind: 100 * model.evaluate(*data[kind], batch_size=100, verbose=0)[1]
    for kind in ('clean', *corruptions.NAMES)
  }
  corrupted = float(np.mean([accuracies[name] for name in corruptions.NAMES]))
  found = {'clean': accuracies.pop('clean'), 'corrupted': corrupted}
  return {
    'cell': cell,
    'seed': seed,
    'setting': in_results(setting),
    'epochs': epochs,
    'accuracies': {
      name: round(value, 2) for name, value in {**found, **accuracies}.items()
    },
    'train_cpu_seconds': round(seconds),
    'tensorflow': tf.__version__,
    'python': platform.python_version(),
    'date': datetime.date.today().isoformat(),
  }


def _batches(
  images: np.ndarray, labels: np.ndarray, seed: int, batch_size: int
) -> tf.data.Dataset:
  """Returns the batches of an epoch, each image mirrored at random."""

  def mirrored(index: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> Any:
    pixels = tf.image.stateless_random_flip_left_right(batch[0], [seed, index])
    return pixels, batch[1]

  order = tf.data.Dataset.range(len(images)).shuffle(len(images), seed)
  batches = order.batch(batch_size, drop_remainder=True)
  batches = batches.map(lambda i: (tf.gather(images, i), tf.gather(labels, i)))
  return batches.enumerate().map(mirrored).prefetch(1)


def run_all(
  cells: Sequence[str],
  seeds: Sequence[int],
  data_dir: str,
  setting: Setting,
  path: str,
  command: str,
) -> list[Line]:
  """Makes the runs that have no line yet, seed by seed.

  Args:
    cells: some of `CELLS`.
    seeds: of the runs.
    data_dir: folder of TFRecords, train-* and validation-*.
    setting: what all runs have in common.
    path: of a file that gets a line of JSON for each run as it ends. Runs that
      have a line there are not made again.
    command: how the runs were started, which each line says.

  Returns:
    The lines of all these runs.
  """
  wanted = [(cell, seed) for seed in seeds for cell in cells]
  lines = {
    (line['cell'], line['seed']): line
    for line in read_lines(path)
    if line['setting'] == in_results(setting)
  }
  missing = [key for key in wanted if key not in lines]
  logging.info('%d of %d runs are missing', len(missing), len(wanted))
  data = load_all(data_dir, setting) if missing else {}
  for cell, seed in missing:
    line = {**run(cell, seed, data, setting), 'command': command}
    _append(path, line)
    print(json.dumps(line), flush=True)
    lines[cell, seed] = line
  return [lines[key] for key in wanted]


def read_lines(path: str) -> list[Line]:
  """Reads every whole line of a file of results, which need not exist."""
  lines = []
  if os.path.exists(path):
    with open(path, encoding='utf-8') as file:
      for text in file:
        if text.endswith('\n'):  # Otherwise a kill cut it.
          lines.append(json.loads(text))
  return lines


def _append(path: str, line: Line) -> None:
  """Adds a line in place of one that a kill cut, if there is such a one."""
  with open(path, 'ab+') as file:
    file.seek(0)
    content = file.read()
    file.truncate(content.rfind(b'\n') + 1)
    file.write(f'{json.dumps(line)}\n'.encode())


def summary(lines: Sequence[Line]) -> dict[str, Any]:
  """Returns means by cell, and each cell's gains over vanilla by seed."""
  figures: dict[str, Any] = {}
  for measure in ('clean', 'corrupted'):
    by_cell: dict[str, dict[int, float]] = {}
    for line in lines:
      own = by_cell.setdefault(line['cell'], {})
      own[line['seed']] = line['accuracies'][measure]
    vanilla = by_cell.get('vanilla')
    for cell, values in by_cell.items():
      mean = float(np.mean(list(values.values())))
      figures[f'{cell}_{measure}'] = round(mean, 2)
      if vanilla is not None and cell != 'vanilla':
        figures[f'{cell}_{measure}_gains'] = [
          round(values[seed] - vanilla[seed], 2) for seed in vanilla
        ]
  return figures
