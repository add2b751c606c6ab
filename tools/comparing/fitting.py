"""Accuracies of a network of keras.applications by method of `fit`."""

from collections.abc import Sequence
import os
from typing import Any

import numpy as np

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.evaluation import corruptions
from efficientnet_advprop.fit import advprop_model

# Imported after the package, which selects Keras 2.
import tensorflow as tf  # isort: skip

_NUM_CLASSES = 10
_BATCH_SIZE = 50
_SEVERITY = 3
CORRUPTIONS = (
  *('gaussian_noise', 'defocus_blur', 'fog', 'contrast', 'jpeg_compression'),
)
# The momentum of the norms. The networks' own 0.999 needs more steps than a
# short run has.
_MOMENTUM = 0.9

Data = dict[str, tuple[np.ndarray, np.ndarray]]


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


def load_all(folder: str, train_images: int, eval_images: int) -> Data:
  """Returns images and labels of `train`, `clean` and each corruption."""
  clean = load(folder, 'validation', eval_images)
  data = {'train': load(folder, 'train', train_images), 'clean': clean}
  for name in CORRUPTIONS:
    images = [
      corruptions.corrupt(image, name, _SEVERITY, 0, index)
      for index, image in enumerate(clean[0])
    ]
    data[name] = np.array(images), clean[1]
  return data


def build(size: int) -> tf.keras.Model:
  """Builds MobileNetV2 of width 0.35 behind resizing, for pixels of 0-255."""
  layers = tf.keras.layers
  base = tf.keras.applications.MobileNetV2(
    (size, size, 3), 0.35, include_top=False, weights=None, pooling='avg'
  )
  for layer in base.layers:
    if isinstance(layer, layers.BatchNormalization):
      layer.momentum = _MOMENTUM
  inputs = tf.keras.Input((None, None, 3))
  x = layers.Rescaling(1 / 127.5, -1)(inputs)
  x = base(layers.Resizing(size, size)(x))
  return tf.keras.Model(inputs, layers.Dense(_NUM_CLASSES)(x))


def run(
  method: str, seed: int, data: Data, epochs: int, image_size: int
) -> dict[str, Any]:
  """Trains a network and evaluates it.

  Args:
    method: of AdvPropModel.
    seed: of weights, batches and attacks.
    data: images and labels of `train`, `clean` and each corruption.
    epochs: of training.
    image_size: height and width of the network's input, in pixels.

  Returns:
    The accuracies in percent.
  """
  tf.keras.utils.set_random_seed(seed)
  attack = config_lib.AttackConfig(epsilon=1)
  model = advprop_model.AdvPropModel(
    build(image_size), attack, method, (0, 255), seed
  )
  images, labels = data['train']
  steps = epochs * (len(images) // _BATCH_SIZE)
  schedule = tf.keras.optimizers.schedules.CosineDecay(0.1, steps)
  model.compile(
    tf.keras.optimizers.SGD(schedule, momentum=0.9),
    tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=['accuracy'],
  )
  flip = tf.image.stateless_random_flip_left_right
  batches = tf.data.Dataset.from_tensor_slices((images, labels))
  batches = batches.shuffle(len(images), seed=seed).enumerate()
  batches = batches.map(lambda i, xy: (flip(xy[0], [seed, i]), xy[1]))
  batches = batches.batch(_BATCH_SIZE, drop_remainder=True)
  model.fit(batches, epochs=epochs, verbose=0)
  accuracy = {
    name: 100 * model.evaluate(*data[name], batch_size=100, verbose=0)[1]
    for name in ('clean', *CORRUPTIONS)
  }
  corrupted = float(np.mean([accuracy[name] for name in CORRUPTIONS]))
  found = {'method': method, 'seed': seed, 'corrupted': corrupted, **accuracy}
  return {k: round(v, 2) if k != 'method' else v for k, v in found.items()}


def summary(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Returns means by method, and AdvProp's gain for each seed."""
  figures: dict[str, Any] = {}
  for measure in ('clean', 'corrupted'):
    by_method: dict[str, dict[int, float]] = {}
    for result in results:
      own = by_method.setdefault(result['method'], {})
      own[result['seed']] = result[measure]
    for method, values in by_method.items():
      mean = float(np.mean(list(values.values())))
      figures[f'{method}_{measure}'] = round(mean, 2)
    if {'vanilla', 'advprop'} <= set(by_method):
      vanilla, advprop = by_method['vanilla'], by_method['advprop']
      figures[f'gains_{measure}'] = [
        round(advprop[seed] - vanilla[seed], 2) for seed in vanilla
      ]
  return figures
