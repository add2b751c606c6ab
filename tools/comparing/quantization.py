"""Quantizes a network in several ways, and compares the files."""

from collections.abc import Callable, Sequence
import csv
import io
import json
from typing import Any

import numpy as np

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import quiet
from efficientnet_advprop.data import bad_records
from efficientnet_advprop.evaluation import tables
from efficientnet_advprop.export import sample_images
from efficientnet_advprop.export import saved_model
from efficientnet_advprop.export import tflite
from efficientnet_advprop.export import verification

import tensorflow as tf  # isort: skip

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
  """Returns the error of an operation over the step of its scale.

  Args:
    row: a row of TensorFlow's quantization debugger.

  Returns:
    The root of the mean square error, in steps.
  """
  return float(row['mean_squared_error']) ** 0.5 / float(row['scale'])


def files(
  model: tf.keras.Model, images: Sequence[np.ndarray], float_layers: int
) -> dict[str, bytes]:
  """Converts a network in every way.

  Args:
    model: the network.
    images: training images, [size, size, 3] in [-1, 1].
    float_layers: how many operations the way `float worst layers` leaves.

  Returns:
    TFLite files, by the names of the ways.
  """
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
  """Converts the network of a run in every way, and tests all files.

  Args:
    config: of the run.
    model_dir: its folder.
    num_images: how many images of the evaluation split are tested.
    float_layers: how many operations the way `float worst layers` leaves.

  Returns:
    The agreement of each file with the trained network, and the files.
  """
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


def report(table: verification.AgreementTable, found: dict[str, bytes]) -> None:
  """Prints what `compare` returns as a table, and a last line of JSON."""
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
