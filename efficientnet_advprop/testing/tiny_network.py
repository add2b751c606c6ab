"""Makes a tiny network on a drawn data set, for the tests of exports."""

import os
import pathlib

import numpy as np
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import files
from efficientnet_advprop.export import saved_model
from efficientnet_advprop.export import versions
from efficientnet_advprop.models import factory

CLASS_NAMES = ['blue', 'green', 'red']
STEP = 40  # Of the checkpoint.
SIZE = 32


def _picture(rng: np.random.Generator, label: int) -> np.ndarray:
  """An image of one colour, which gives the class away."""
  height, width = rng.integers(50, 70, 2)
  pixels = np.full((height, width, 3), 60) + rng.integers(0, 6, 3)
  pixels[:, :, 2 - label] += 120
  return pixels.astype(np.uint8)


def write_images(directory: pathlib.Path) -> None:
  """Writes 30 training and 12 validation images as class folders."""
  rng = np.random.default_rng(0)
  for split, count in (('train', 30), ('validation', 12)):
    for index in range(count):
      label = index % 3
      folder = directory / split / CLASS_NAMES[label]
      folder.mkdir(parents=True, exist_ok=True)
      pixels = _picture(rng, label)
      encode = tf.io.encode_png if index % 2 else tf.io.encode_jpeg
      suffix = 'png' if index % 2 else 'jpg'
      tf.io.write_file(os.fspath(folder / f'{index}.{suffix}'), encode(pixels))


def _features(network: tf.keras.Model, images: tf.Tensor) -> tf.Tensor:
  """What reaches the classifier."""
  seen = []
  call = network.classifier.call

  def watched(inputs: tf.Tensor) -> tf.Tensor:
    seen.append(inputs)
    return call(inputs)

  network.classifier.call = watched
  network(images)
  network.classifier.call = call
  return seen[0]


def fit(network: tf.keras.Model, images: tf.data.Dataset) -> None:
  """Gives a network the weights by which it is right about some images.

  All but the classifier is drawn at random, from a range in which rounding
  errors do not grow; the classifier solves a ridge regression.

  Args:
    network: any.
    images: as `sample_images.evenly_spaced` returns them.
  """
  rng = np.random.default_rng(1)
  for variable in network.variables:
    name, shape = variable.name, variable.shape
    if 'kernel' in name and len(shape) == 4:
      area = shape[0] * shape[1] * (shape[2] if shape[3:] != [1] else 1)
      variable.assign(rng.normal(0, (2 / area) ** 0.5, shape))
    elif 'gamma' in name:
      variable.assign(rng.uniform(0.9, 1.1, shape))
    elif 'variance' in name:
      variable.assign(rng.uniform(0.1, 0.2, shape))
    else:
      variable.assign(rng.normal(0, 0.1, shape))
  batch = next(iter(images.batch(100)))
  features = _features(network, batch['image'])
  mean = tf.reduce_mean(features, 0, keepdims=True)
  targets = 6 * tf.one_hot(batch['label'], len(CLASS_NAMES)) - 2
  scale = tf.math.reduce_std(features)
  kernel = tf.linalg.lstsq((features - mean) / scale, targets, 0.1) / scale
  network.classifier.kernel.assign(kernel)
  network.classifier.bias.assign(tf.squeeze(-mean @ kernel, 0))


def run_config(directory: pathlib.Path) -> config_lib.Config:
  """Settings of a run on the images of `write_images`."""
  values = {
    'model': {
      'name': 'efficientnet-b0',
      'image_size': SIZE,
      'width_coefficient': 0.25,
      'depth_coefficient': 0.1,
    },
    'data': {
      'dir': os.fspath(directory),
      'num_classes': len(CLASS_NAMES),
      'num_train_images': 30,
      'num_eval_images': 12,
    },
    'train': {'batch_size': 6},
  }
  return config_lib.from_dict(values)


def write_run(
  config: config_lib.Config, network: tf.keras.Model, model_dir: str
) -> None:
  """Writes a run whose averaged weights are the network's, unlike the raw."""
  raw = factory.create_model(
    config.model, config.data.num_classes, config.auxiliary_domains
  )
  step = tf.train.Checkpoint(_iterations=tf.Variable(STEP, dtype=tf.int64))
  checkpoint = tf.train.Checkpoint(model=raw, ema=network, optimizer=step)
  checkpoint.write(os.path.join(model_dir, 'checkpoints', f'ckpt-{STEP}'))
  files.write(
    os.path.join(model_dir, 'config.yaml'), config_lib.to_yaml(config)
  )


def write_version(
  config: config_lib.Config, model_dir: str, export_dir: str
) -> str:
  """Writes the network of a run as a version that nothing has verified.

  Returns:
    The version's folder, `<export_dir>/<number>`.
  """
  names = CLASS_NAMES
  if config.data.num_classes != len(names):
    names = saved_model.checked_class_names(None, config.data.num_classes)
  model, _ = saved_model.restored_model(config, model_dir)
  with versions.new_version(export_dir) as folder:
    saved_model.write_saved_model(model, config, names, folder)
    return versions.publish(folder)
