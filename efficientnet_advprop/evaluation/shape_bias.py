"""Shape bias: which class wins where an image points to two of them.

Geirhos et al., 2019: on images whose shape is of one class and whose texture is
of another (cue conflict), the shape bias is the share of answers by shape among
the answers by either. The class of a record is that of its shape.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from efficientnet_advprop.base import errors


def conflict_sums(
  logits: tf.Tensor, batch: Mapping[str, tf.Tensor]
) -> tf.Tensor:
  """Counts answers by shape and by cue on the images where these differ.

  Args:
    logits: float32 [batch, classes].
    batch: `label`, `cue_label`, integers [batch], and `weight`, float32
      [batch], 1 for an image and 0 for padding.

  Returns:
    float32 [3]: images whose two classes differ; those of them whose first
    logit is that of the shape; those where it is that of the cue.
  """
  labels, cue_labels = batch['label'], batch['cue_label']
  weights = tf.where(labels != cue_labels, batch['weight'], 0.0)
  is_right = [
    tf.cast(tf.math.in_top_k(classes, logits, 1), tf.float32)
    for classes in (labels, cue_labels)
  ]
  values = tf.stack([tf.ones_like(weights), *is_right])
  return tf.reduce_sum(values * weights, 1)


def figures(sums: Sequence[float], cue: str, split: str) -> dict[str, Any]:
  """The shape bias on a split.

  Args:
    sums: of `conflict_sums`, over all batches.
    cue: such as `texture`.
    split: for messages.

  Returns:
    `cue`; `num_conflicts`; `shape_accuracy` and `cue_accuracy`, top-1 by either
    class on these images; `shape_bias`, the first over the sum of both, None if
    both are 0. Fractions, all three.

  Raises:
    DataError: there is no image whose two classes differ.
  """
  conflicts, by_shape, by_cue = (round(float(value)) for value in sums)
  if not conflicts:
    raise errors.DataError(
      f'{split}: no image whose {cue} is that of another class; the shape bias'
      ' needs some'
    )
  either = by_shape + by_cue
  return {
    'cue': cue,
    'num_conflicts': conflicts,
    'shape_accuracy': by_shape / conflicts,
    'cue_accuracy': by_cue / conflicts,
    'shape_bias': by_shape / either if either else None,
  }
