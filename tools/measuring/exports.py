"""The size and the speed of a network's exported files."""

import os
import tempfile
from typing import Optional

import numpy as np

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.export import saved_model
from efficientnet_advprop.export import tflite
from efficientnet_advprop.models import factory
from tools.measuring import rounds as rounds_lib
from tools.measuring import steps as steps_lib

import tensorflow as tf  # isort: skip

BATCH_SIZES = (1, 32)
_VARIANTS = ('float32', 'float16', 'dynamic', 'int8')
_CALIBRATION_IMAGES = 8  # Of noise: ranges do not change the speed.

Steps = dict[str, rounds_lib.Step]
Figures = dict[str, float]


def plain_network(name: str, size: int) -> tf.keras.Model:
  """Returns the network of keras.applications, which gives probabilities."""
  family, _, number = name.partition('-')
  title = {'efficientnet': 'EfficientNet', 'resnet': 'ResNet'}[family]
  constructor = getattr(tf.keras.applications, title + number.upper())
  return constructor(weights=None, input_shape=(size, size, 3))


def file_size(path: str) -> float:
  """Returns the size of a file, or of all files in a folder, in MiB."""
  if os.path.isfile(path):
    return os.path.getsize(path) / 2**20
  return sum(file_size(os.path.join(path, name)) for name in os.listdir(path))


def write_files(
  config: config_lib.Config, directory: str
) -> tuple[str, dict[str, bytes]]:
  """Exports a network with random weights.

  Returns:
    The folder of the SavedModel, and TFLite files by their variants.
  """
  model = factory.create_model(config.model, config.data.num_classes, ())
  names = [str(label) for label in range(config.data.num_classes)]
  saved_model.write_saved_model(model, config, names, directory)
  size = config.model.image_size
  noise = np.random.default_rng(0).uniform(
    -1, 1, [_CALIBRATION_IMAGES, size, size, 3]
  )
  calibration = noise.astype(np.float32)
  files = {v: tflite.convert(model, v, calibration) for v in _VARIANTS}
  return directory, files


def variants(
  plain: tf.keras.Model,
  directory: str,
  files: dict[str, bytes],
  images: np.ndarray,
) -> Steps:
  """Returns a call of each reader that classifies [batch, size, size, 3]."""
  signature = tf.saved_model.load(directory).signatures[
    saved_model.FLOAT_SIGNATURE
  ]
  tensor = tf.constant(images)

  @tf.function
  def classify() -> tf.Tensor:
    return plain(tensor, training=False)

  def run_tflite(content: bytes) -> rounds_lib.Step:
    reader = tflite.Reader(content)
    return lambda: reader(images)

  return {
    'plain': classify,
    'saved_model': lambda: signature(images=tensor),
    **{f'tflite_{v}': run_tflite(content) for v, content in files.items()},
  }


def measure(
  name: str,
  size: Optional[int],
  rounds: int,
  num_classes: int = steps_lib.NUM_CLASSES,
) -> Figures:
  """Measures every file, and prints a table for each batch size.

  Args:
    name: of the network.
    size: height and width of the images, in pixels; None for the network's own.
    rounds: how often each variant is timed.
    num_classes: outputs of the network.

  Returns:
    By names, the MiB of each file and medians of the ratios of CPU time.
  """
  model = {'name': name, 'image_size': size}
  config = config_lib.from_dict(
    {'model': model, 'data': {'num_classes': num_classes}}
  )
  size = config.model.image_size
  plain = plain_network(name, size)
  figures: Figures = {}
  with tempfile.TemporaryDirectory() as folder:
    directory, files = write_files(config, os.path.join(folder, '1'))
    figures['saved_model_mib'] = file_size(directory)
    for variant, content in files.items():
      figures[f'tflite_{variant}_mib'] = len(content) / 2**20
    for batch_size in BATCH_SIZES:
      shape = [batch_size, size, size, 3]
      images = np.random.default_rng(1).uniform(-1, 1, shape)
      steps = variants(plain, directory, files, images.astype(np.float32))
      print(f'{name}, {size} px, batch {batch_size}, {rounds} rounds')
      cpu, wall = rounds_lib.take_turns(steps, rounds)
      print(rounds_lib.table(cpu, wall), flush=True)
      for variant, values in rounds_lib.ratios(cpu).items():
        figures[f'{variant}_{batch_size}'] = float(np.median(values))
  return figures
