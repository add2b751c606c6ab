import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.base import errors
from efficientnet_advprop.export import verification

_PROBABILITIES = np.array(
  [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.5, 0.0], [0.2, 0.2, 0.6]],
  np.float32,
)
_LABELS = np.array([0, 1, 0, 1])


def _dataset():
  images = _PROBABILITIES[:, np.newaxis, np.newaxis]  # Whatever the shape.
  encoded = np.array([b'a', b'b', b'c', b'd'])
  values = dict(image=images, encoded=encoded, label=_LABELS)
  return tf.data.Dataset.from_tensor_slices(values)


def _network(images, encoded):
  return images[:, 0, 0]


def _compare(change, allowed_drops=()):
  def reader(images, encoded):
    return _network(images, encoded) + np.array(change, np.float32)

  return verification.compare(
    _network, {'file': reader}, _dataset(), dict(allowed_drops)
  )


def test_equal_files_pass():
  table = _compare([0, 0, 0])
  (row,) = table.readers
  assert table.num_images == 4
  assert table.top_1_accuracy == row.top_1_accuracy == 0.75
  assert row.max_difference == 0
  assert row.equal_top_1 == 1
  table.check()


def test_ties_are_no_disagreement():
  table = _compare([-1e-5, 0, 0])  # Turns the tie of the third image.
  assert table.readers[0].equal_top_1 == 1
  table.check()


def test_a_disagreement_fails():
  table = _compare([0, 0, 0.35])
  (row,) = table.readers
  np.testing.assert_allclose(row.max_difference, 0.35)
  assert row.equal_top_1 == 0.75
  with pytest.raises(errors.ExportError, match='file disagrees') as caught:
    table.check()
  assert len(str(caught.value).splitlines()) == 1


def test_inexact_files_pass_by_accuracy():
  change = [0, 0, 0.35]  # Gets the second image wrong, of four.
  _compare(change, {'file': 25}).check()
  with pytest.raises(errors.ExportError, match='loses 25'):
    _compare(change, {'file': 24.9}).check()


def test_the_allowed_drop_itself_is_allowed():
  """0.59 less 0.58 is more than 0.01 in binary fractions."""
  labels = np.zeros(100, np.int32)
  right = np.array([[1, 0]] * 59 + [[0, 1]] * 41, np.float32)
  wrong = np.array([[1, 0]] * 58 + [[0, 1]] * 42, np.float32)
  values = dict(image=right, encoded=np.full(100, b''), label=labels)
  table = verification.compare(
    lambda images, encoded: images,
    {'file': _in_order(wrong)},
    tf.data.Dataset.from_tensor_slices(values),
    {'file': 1.0},
  )
  table.check()
  assert table.readers[0].accuracy_drop == 1


def _in_order(probabilities):
  """A reader of these, whatever the images."""
  left = list(probabilities)
  return lambda images, encoded: np.stack([left.pop(0) for _ in images])
