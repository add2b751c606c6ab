import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import losses

_LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0]], np.float32)


def _expected(targets):
  log_p = _LOGITS - np.log(np.exp(_LOGITS).sum(1, keepdims=True))
  return -(np.asarray(targets) * log_p).sum(1)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_hard_labels_follow_the_formula(smoothing):
  targets = np.full((2, 3), smoothing / 3)
  targets[0, 0] += 1 - smoothing
  targets[1, 1] += 1 - smoothing
  found = losses.cross_entropy(tf.constant([0, 1]), _LOGITS, smoothing)
  np.testing.assert_allclose(found, _expected(targets), rtol=1e-6)


def test_soft_labels_follow_the_formula():
  soft = tf.constant([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5]])
  found = losses.cross_entropy(soft, _LOGITS)
  np.testing.assert_allclose(found, _expected(soft), rtol=1e-6)
  found = losses.cross_entropy(soft, _LOGITS, 0.3)
  smooth = 0.7 * soft.numpy() + 0.1
  np.testing.assert_allclose(found, _expected(smooth), rtol=1e-6)


def test_one_hot_labels_have_the_gradient_of_hard_ones():
  logits = tf.Variable(_LOGITS)
  gradients = []
  for labels in (tf.constant([2, 1]), tf.one_hot([2, 1], 3)):
    with tf.GradientTape() as tape:
      loss = tf.reduce_sum(losses.cross_entropy(labels, logits))
    gradients.append(tape.gradient(loss, logits))
  np.testing.assert_array_equal(*gradients)


def test_the_weight_penalty_is_half_the_sum_of_squares():
  weights = [tf.Variable([1.0, 2.0]), tf.Variable([[3.0]])]
  penalty = losses.weight_penalty(weights, 0.1)
  assert float(penalty) == pytest.approx(0.1 * 14 / 2)
