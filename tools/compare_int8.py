r"""Compares ways to quantize a run's network, on its own images.

  .venv/bin/python tools/compare_int8.py \
      --model_dir=runs/efficientnet-b0_advprop

Every way takes the ranges of activations from the same training images, and is
tested on the same evaluation images against the trained network:

  int8                  as `export.tflite=int8`: a scale for each channel
  one scale             a scale for each kernel
  float classifier      classifier and softmax stay in float
  float gates           sigmoids, products and means stay in float: all of
                        swish and squeeze-excitation
  float worst layers    the `--float_layers` operations with the largest error
                        stay in float: the root of the mean square over the
                        step of the scale, by TensorFlow's quantization debugger
  int16 activations     int8 weights, 16-bit activations

It prints a table, whose last line is JSON: by way, top-1 in percent, the share
of images of equal top-1 in percent, the largest difference of a probability,
and KiB.
"""

from collections.abc import Callable, Sequence
import csv
import dataclasses
import io
import json
import os
import sys
from typing import Any

from absl import app
from absl import flags
import numpy as np

# A script finds the package only beside its own folder.
sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import program
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import paths
from efficientnet_advprop.base import quiet
from efficientnet_advprop.data import bad_records
from efficientnet_advprop.evaluation import tables
from efficientnet_advprop.export import sample_images
from efficientnet_advprop.export import saved_model
from efficientnet_advprop.export import tflite
from efficientnet_advprop.export import verification

# Behind the package, which chooses Keras and kernels before TensorFlow loads.
import tensorflow as tf  # isort: skip

_FLAGS = program.flag_values(__name__)
_MODEL_DIR = flags.DEFINE_string(
  'model_dir', None, 'The run.', required=True, flag_values=_FLAGS
)
_DATA_DIR = flags.DEFINE_string(
  'data_dir', None, "The images. Default: the run's.", flag_values=_FLAGS
)
_NUM_IMAGES = flags.DEFINE_integer(
  'num_images', 500, 'Of the evaluation split.', 1, flag_values=_FLAGS
)
_FLOAT_LAYERS = flags.DEFINE_integer(
  'float_layers', 10, 'How many stay in float.', 1, flag_values=_FLAGS
)

# Images on which the debugger measures errors.
_DEBUG_IMAGES = 50
_CLASSIFIER = ['FULLY_CONNECTED', 'SOFTMAX']
_GATES = ['LOGISTIC', 'MUL', 'MEAN']


class Quantizer:
  """Converts a network in every way."""

  def __init__(self, model: tf.keras.Model, images: Sequence[np.ndarray]):
    """Takes a network and training images, [size, size, 3] in [-1, 1]."""
    self._model, self._images = model, images

  def one_scale(self) -> bytes:
    converter = self._converter()
    converter._experimental_disable_per_channel = True
    return converter.convert()

  def int16_activations(self) -> bytes:
    converter = self._converter()
    converter.target_spec.supported_ops = [
      tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    ]
    return converter.convert()

  def without(self, operations: list[str]) -> bytes:
    """Keeps kinds of operations in float."""
    debugger = self._debugger(denylisted_ops=operations)
    return debugger.get_nondebug_quantized_model()

  def without_worst(self, count: int) -> bytes:
    """Keeps the operations with the largest relative errors in float."""
    debugger = self._debugger()
    debugger.run()
    text = io.StringIO()
    debugger.layer_statistics_dump(text)
    rows = list(csv.DictReader(io.StringIO(text.getvalue())))
    worst = sorted(rows, key=relative_error, reverse=True)[:count]
    names = [row['tensor_name'] for row in worst]
    debugger = self._debugger(denylisted_nodes=names)
    return debugger.get_nondebug_quantized_model()

  def _converter(self) -> tf.lite.TFLiteConverter:
    converter = tflite.create_converter(self._model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = tflite.representative(self._images)
    return converter

  def _debugger(self, **options: list[str]) -> Any:
    return tf.lite.experimental.QuantizationDebugger(
      converter=self._converter(),
      debug_dataset=tflite.representative(self._images[:_DEBUG_IMAGES]),
      debug_options=tf.lite.experimental.QuantizationDebugOptions(**options),
    )


def relative_error(row: dict[str, str]) -> float:
  """Root mean square error of a row of the debugger, over its scale's step."""
  return float(row['mean_squared_error']) ** 0.5 / float(row['scale'])


def files(
  model: tf.keras.Model, images: Sequence[np.ndarray], float_layers: int
) -> dict[str, bytes]:
  """TFLite files, by the names of the ways to quantize."""
  quantizer = Quantizer(model, images)
  ways: dict[str, Callable[[], bytes]] = {
    'float32': lambda: tflite.convert(model, 'float32'),
    'int8': lambda: tflite.convert(model, 'int8', images),
    'one scale': quantizer.one_scale,
    'float classifier': lambda: quantizer.without(_CLASSIFIER),
    'float gates': lambda: quantizer.without(_GATES),
    'float worst layers': lambda: quantizer.without_worst(float_layers),
    'int16 activations': quantizer.int16_activations,
  }
  with quiet.quiet_logs():
    return {name: way() for name, way in ways.items()}


def compare(
  config: config_lib.Config, model_dir: str, num_images: int, float_layers: int
) -> tuple[verification.AgreementTable, dict[str, bytes]]:
  """Converts the network of a run in every way, and tests all files."""
  model, _ = saved_model.restored_model(config, model_dir)
  found = files(model, sample_images.calibration_images(config), float_layers)
  readers = {
    name: verification.tflite_reader(file) for name, file in found.items()
  }
  tested = sample_images.evenly_spaced(
    config, config.data.eval_split, num_images
  )
  with bad_records.data_errors():
    table = verification.compare(
      verification.network_reader(model), readers, tested, {}
    )
  return table, found


def main(_: list[str]) -> None:
  """Prints the table; an error ends in one line and exit code 2."""
  try:
    path = os.path.join(_MODEL_DIR.value, paths.CONFIG)
    config = config_lib.load_config(path)
    if _DATA_DIR.value is not None:
      data = dataclasses.replace(config.data, dir=_DATA_DIR.value)
      config = dataclasses.replace(config, data=data)
    table, found = compare(
      config, _MODEL_DIR.value, _NUM_IMAGES.value, _FLOAT_LAYERS.value
    )
  except (
    config_lib.ConfigError,
    errors.CheckpointError,
    errors.DataError,
  ) as error:
    program.fail('compare_int8', error)
  figures = {
    row.reader: {
      'top_1': round(100 * row.top_1_accuracy, 2),
      'equal_top_1': round(100 * row.equal_top_1, 2),
      'max_difference': round(row.max_difference, 4),
      'kib': round(len(found[row.reader]) / 1024),
    }
    for row in table.readers
  }
  print(
    f'{table.num_images} images, top-1 of the trained network'
    f' {100 * table.top_1_accuracy:.2f}%\n'
  )
  columns = list(next(iter(figures.values())))
  rows = [
    [name, *(str(row[column]) for column in columns)]
    for name, row in figures.items()
  ]
  print(tables.format_table(['', *columns], rows))
  print(json.dumps(figures))


parse_flags = program.parser('compare_int8', _FLAGS)


if __name__ == '__main__':
  app.run(main, flags_parser=parse_flags)
