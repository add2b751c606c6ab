import numpy as np
import tensorflow as tf

from efficientnet_advprop.evaluation import scores


def _sums(logits, labels, weights):
  found = scores.image_scores(logits, labels)
  return scores.batch_sums(found, weights)


def test_fewer_than_five_classes_have_a_top_5():
  logits = tf.constant([[1.0, 2.0], [3.0, 0.0]])
  labels, weights = tf.constant([0, 0]), tf.constant([1.0, 1.0])
  sums = _sums(logits, labels, weights)
  np.testing.assert_allclose(sums[2:], [1, 2])


def test_padding_has_no_weight():
  logits = tf.constant([[1.0, 2.0], [3.0, 0.0]])
  labels, weights = tf.constant([1, 1]), tf.constant([1.0, 0.0])
  sums = _sums(logits, labels, weights)
  np.testing.assert_allclose(sums, [1, np.log1p(np.exp(-1)), 1, 1], rtol=1e-6)
