"""The losses of training and of the attack: cross-entropy and weight penalty.

Plain TensorFlow, without Keras: networks of Keras 2 and Keras 3 can use it.
"""

from collections.abc import Sequence

import tensorflow as tf


def cross_entropy(
  labels: tf.Tensor, logits: tf.Tensor, smoothing: float = 0.0
) -> tf.Tensor:
  """Computes the cross-entropy of each example.

  Args:
    labels: hard labels, integers [batch] in [0, classes); or soft ones, the
      probabilities of all classes, float32 [batch, classes].
    logits: float32 [batch, classes].
    smoothing: share of each label, in [0, 1), that is spread evenly over all
      classes (Szegedy et al., 2016).

  Returns:
    Losses, float32 [batch].
  """
  num_classes = logits.shape[-1]
  if labels.shape.rank == 2:
    targets = tf.cast(labels, tf.float32)
  elif smoothing:
    targets = tf.one_hot(labels, num_classes)
  else:
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
  if smoothing:
    targets = targets * (1 - smoothing) + smoothing / num_classes
  return tf.nn.softmax_cross_entropy_with_logits(targets, logits)


def weight_penalty(
  variables: Sequence[tf.Variable], weight_decay: float
) -> tf.Tensor:
  """Computes weight_decay * sum(v ** 2) / 2 over all values of `variables`."""
  if not variables:
    return tf.constant(0.0)
  return weight_decay * tf.add_n([tf.nn.l2_loss(v) for v in variables])
