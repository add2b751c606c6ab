"""Whether exported files classify real images as the trained network does."""

from collections.abc import Mapping
import dataclasses
import os
from typing import Callable, Optional

import numpy as np
import tensorflow as tf

from efficientnet_advprop.base import errors
from efficientnet_advprop.base import files
from efficientnet_advprop.export import onnx_files
from efficientnet_advprop.export import saved_model
from efficientnet_advprop.export import tflite

REPORT_FILE = 'agreement.json'

# Between probabilities that float32 arithmetic computes in different orders.
TOLERANCE = 1e-4
_BATCH_SIZE = 32

# From prepared images, float32 [batch, size, size, 3] in [-1, 1], and the same
# as encoded strings [batch], to probabilities, float32 [batch, classes].
Reader = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Agreement:
  """How the probabilities of one reader agree with the trained network's.

  Attributes:
    reader: its name.
    max_difference: the largest absolute difference of two probabilities.
    equal_top_1: the share of images whose top class is the network's; classes
      that the network itself holds for equal within the tolerance count as one.
    top_1_accuracy: a fraction.
    accuracy_drop: in percentage points; negative if the accuracy rises.
    allowed_drop: as `accuracy_drop`; None where the probabilities must be
      equal.
  """

  reader: str
  max_difference: float
  equal_top_1: float
  top_1_accuracy: float
  accuracy_drop: float
  allowed_drop: Optional[float] = None

  def problem(self) -> str:
    """Why the reader fails, in words; empty if it passes."""
    if self.allowed_drop is not None:
      if self.accuracy_drop <= self.allowed_drop:
        return ''
      return (
        f'{self.reader} loses {self.accuracy_drop:.2f} points of top-1 accuracy'
        f' (export.max_accuracy_drop={self.allowed_drop:g})'
      )
    if self.max_difference <= TOLERANCE and self.equal_top_1 == 1:
      return ''
    return (
      f'{self.reader} disagrees with the trained network: probabilities differ'
      f' by up to {self.max_difference:.2g} (allowed: {TOLERANCE:g}), top-1 is'
      f' equal for {self.equal_top_1:.2%} of the images'
    )


@dataclasses.dataclass(frozen=True)
class AgreementTable:
  """How all readers of an export agree with the trained network."""

  num_images: int
  top_1_accuracy: float
  readers: list[Agreement]

  def text(self) -> str:
    """Formats the table as text, a line for each reader."""
    lines = [
      f'Agreement with the trained network on {self.num_images} images'
      f' (its top-1 accuracy: {self.top_1_accuracy:.2%}):'
    ]
    for row in self.readers:
      lines.append(
        f'  {row.reader:32} max difference {row.max_difference:.1e},'
        f' equal top-1 {row.equal_top_1:.2%},'
        f' top-1 accuracy {row.top_1_accuracy:.2%}'
      )
    return '\n'.join(lines)

  def check(self) -> None:
    """Raises ExportError if a reader fails."""
    problems = [row.problem() for row in self.readers if row.problem()]
    if problems:
      raise errors.ExportError('; '.join(problems) + '; nothing exported')


def network_reader(model: tf.keras.Model) -> Reader:
  """Reads the trained network itself, through its main norms."""

  @tf.function
  def classify(images: tf.Tensor) -> tf.Tensor:
    return tf.nn.softmax(model(images, training=False))

  return lambda images, encoded: classify(images).numpy()


def saved_model_readers(directory: str) -> dict[str, Reader]:
  """Reads both signatures of a SavedModel."""
  loaded = tf.saved_model.load(directory)
  from_images = loaded.signatures[saved_model.FLOAT_SIGNATURE]
  from_bytes = loaded.signatures[saved_model.BYTES_SIGNATURE]

  def read_images(images: np.ndarray, encoded: np.ndarray) -> np.ndarray:
    inputs = {saved_model.IMAGES: tf.constant(images)}
    return from_images(**inputs)['probabilities'].numpy()

  def read_bytes(images: np.ndarray, encoded: np.ndarray) -> np.ndarray:
    inputs = {saved_model.IMAGE_BYTES: tf.constant(encoded)}
    return from_bytes(**inputs)['probabilities'].numpy()

  return {
    f'SavedModel {saved_model.FLOAT_SIGNATURE}': read_images,
    f'SavedModel {saved_model.BYTES_SIGNATURE}': read_bytes,
  }


def tflite_reader(content: bytes) -> Reader:
  """Reads a TFLite file."""
  reader = tflite.Reader(content)
  return lambda images, encoded: reader(images)


def onnx_reader(content: bytes) -> Reader:
  """Reads an ONNX file by onnxruntime."""
  reader = onnx_files.Reader(content)
  return lambda images, encoded: reader(images, onnx_files.PROBABILITIES)


def compare(
  network: Reader,
  readers: Mapping[str, Reader],
  images: tf.data.Dataset,
  allowed_drops: Mapping[str, float],
) -> AgreementTable:
  """Runs the trained network and all readers on the same images.

  Args:
    network: the trained network.
    readers: of exported files, by their names.
    images: as `sample_images.evenly_spaced` returns them.
    allowed_drops: percentage points of accuracy that the readers of inexact
      files may lose, by their names.

  Returns:
    The figures, whether good or bad.

  Raises:
    tf.errors.OpError: an image does not decode.
  """
  rows: dict[str, list[np.ndarray]] = {name: [] for name in readers}
  expected, labels = [], []
  for batch in images.batch(_BATCH_SIZE).as_numpy_iterator():
    pixels, encoded = batch['image'], batch['encoded']
    labels.append(batch['label'])
    expected.append(network(pixels, encoded))
    for name, reader in readers.items():
      rows[name].append(reader(pixels, encoded))
  reference, truth = np.concatenate(expected), np.concatenate(labels)
  accuracy = _accuracy(reference, truth)
  agreements = []
  for name, parts in rows.items():
    probabilities = np.concatenate(parts)
    own_accuracy = _accuracy(probabilities, truth)
    agreements.append(
      Agreement(
        reader=name,
        max_difference=float(np.max(np.abs(probabilities - reference))),
        equal_top_1=_equal_top_1(probabilities, reference),
        top_1_accuracy=own_accuracy,
        # Fractions of binary numbers would make 1.00 points more than 1.
        accuracy_drop=round(100 * (accuracy - own_accuracy), 9),
        allowed_drop=allowed_drops.get(name),
      )
    )
  return AgreementTable(len(truth), accuracy, agreements)


def _accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
  return float(np.mean(np.argmax(probabilities, 1) == labels))


def _equal_top_1(probabilities: np.ndarray, reference: np.ndarray) -> float:
  chosen = np.argmax(probabilities, 1)[:, np.newaxis]
  of_chosen = np.take_along_axis(reference, chosen, 1)[:, 0]
  return float(np.mean(of_chosen >= np.max(reference, 1) - TOLERANCE))


def write_report(
  directory: str, table: AgreementTable, facts: Mapping[str, object]
) -> str:
  """Writes the table as JSON next to the exported files.

  Args:
    directory: of the version.
    table: the figures.
    facts: about the network and the images, written before the figures.

  Returns:
    The path of the file.
  """
  path = os.path.join(directory, REPORT_FILE)
  values = {**facts, **dataclasses.asdict(table)}
  files.write_json(path, values, indent=2)
  return path
