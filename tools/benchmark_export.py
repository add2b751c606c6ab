"""Measures the size and speed of exported files against plain Keras.

  .venv/bin/python tools/benchmark_export.py --model_name=efficientnet-b0

CPU time on one thread, which is the latency of an otherwise idle core, as a
ratio to the network of keras.applications in a `tf.function`, in the same
rounds. A TFLite file takes one image at a time; a batch of 32 is 32 calls. The
last line is JSON. Weights are random: they change neither size nor speed.
"""

from collections.abc import Sequence
import json
import os
import sys
import tempfile
from typing import Optional

from absl import app
from absl import flags
import numpy as np

# TensorFlow's own start-up notes would bury what a user wants to read.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
# A script finds the package only beside its own folder.
sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import program
from efficientnet_advprop.export import saved_model
from efficientnet_advprop.export import tflite
from efficientnet_advprop.models import factory
from tools import benchmark_step

import tensorflow as tf  # isort: skip

_FLAGS = program.flag_values(__name__)
_MODEL_NAME = flags.DEFINE_enum(
  'model_name',
  'efficientnet-b0',
  # keras.applications has no larger ones.
  [n for n in config_lib.MODEL_NAMES if n[-3:] not in ('-b8', '200')],
  'The network.',
  flag_values=_FLAGS,
)
_IMAGE_SIZE = flags.DEFINE_integer(
  'image_size', None, "In pixels; default: the network's.", flag_values=_FLAGS
)
_ROUNDS = flags.DEFINE_integer(
  'rounds', 9, 'One call of each variant a round.', 1, flag_values=_FLAGS
)

BATCH_SIZES = (1, 32)
_NUM_CLASSES = 1000
_VARIANTS = ('float32', 'float16', 'dynamic', 'int8')
_CALIBRATION_IMAGES = 8  # Of noise: ranges do not change the speed.

Steps = dict[str, benchmark_step.Step]
Figures = dict[str, float]


def plain_network(name: str, size: int) -> tf.keras.Model:
  """The peer of keras.applications, with probabilities as its output."""
  family, _, number = name.partition('-')
  title = {'efficientnet': 'EfficientNet', 'resnet': 'ResNet'}[family]
  constructor = getattr(tf.keras.applications, title + number.upper())
  return constructor(weights=None, input_shape=(size, size, 3))


def file_size(path: str) -> float:
  """MiB of a file, or of all files in a folder."""
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
  """A call of each reader that classifies the images [batch, size, size, 3]."""
  signature = tf.saved_model.load(directory).signatures[
    saved_model.FLOAT_SIGNATURE
  ]
  tensor = tf.constant(images)

  @tf.function
  def classify() -> tf.Tensor:
    return plain(tensor, training=False)

  def run_tflite(content: bytes) -> benchmark_step.Step:
    reader = tflite.Reader(content)
    return lambda: reader(images)

  return {
    'plain': classify,
    'saved_model': lambda: signature(images=tensor),
    **{f'tflite_{v}': run_tflite(content) for v, content in files.items()},
  }


def measure(
  name: str, size: Optional[int], rounds: int, num_classes: int = _NUM_CLASSES
) -> Figures:
  """Prints a table for each batch size.

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
      cpu, wall = benchmark_step.take_turns(steps, rounds)
      print(benchmark_step.table(cpu, wall), flush=True)
      for variant, values in benchmark_step.ratios(cpu).items():
        figures[f'{variant}_{batch_size}'] = float(np.median(values))
  return figures


def main(_: Sequence[str]) -> None:
  """Prints the tables, and the figures as JSON."""
  # With one thread, CPU time is latency.
  tf.config.threading.set_intra_op_parallelism_threads(1)
  tf.config.threading.set_inter_op_parallelism_threads(1)
  figures = measure(_MODEL_NAME.value, _IMAGE_SIZE.value, _ROUNDS.value)
  print(json.dumps({key: round(value, 3) for key, value in figures.items()}))


if __name__ == '__main__':
  app.run(main, flags_parser=program.parser('benchmark_export', _FLAGS))
