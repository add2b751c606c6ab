"""Scores of images: loss, top-1, top-5, and the worst of repeated attacks."""

from collections.abc import Mapping, Sequence
from typing import Callable

import numpy as np
import tensorflow as tf

from efficientnet_advprop import attacks
from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import randomness

# The logit of a class that must not be chosen, and a loss that only an image of
# such a class can have.
_MASKED, IMPOSSIBLE_LOSS = -1e30, 1e20
# What `batch_sums` adds up, in its order.
SUMS = ('num_examples', 'loss', 'top_1_accuracy', 'top_5_accuracy')


def masked_to(logits: tf.Tensor, classes: Sequence[int]) -> tf.Tensor:
  """Masks the logits of all other classes, so that they are never chosen.

  Args:
    logits: float32 [batch, classes].
    classes: that may be chosen.

  Returns:
    The logits of these classes, and -1e30 everywhere else.
  """
  may_be_chosen = np.isin(np.arange(logits.shape[-1]), classes)
  return tf.where(may_be_chosen, logits, _MASKED)


def image_scores(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
  """Scores how well each image of a batch is recognized.

  Args:
    logits: float32 [batch, classes].
    labels: integers [batch].

  Returns:
    float32 [3, batch]: losses; 1 or 0 as the class is the first or not, and
    among the first five or not (fewer if there are fewer classes).
  """
  losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
  top_1 = tf.math.in_top_k(labels, logits, 1)
  top_5 = tf.math.in_top_k(labels, logits, min(5, logits.shape[-1]))
  return tf.stack([tf.cast(v, tf.float32) for v in (losses, top_1, top_5)])


def worst_scores(
  logits_fn: Callable[[tf.Tensor], tf.Tensor],
  batch: Mapping[str, tf.Tensor],
  attack: config_lib.AttackConfig,
  restarts: int,
) -> tf.Tensor:
  """Scores each image by the worst of several restarts of an attack.

  Each restart draws from the image's seed and from its own number. So an image
  is attacked alike in any batch and on any number of replicas, and the first k
  of k + 1 restarts are those of a test with k.

  Args:
    logits_fn: maps images to logits [batch, classes].
    batch: `image`, `label` and `seed` of `pipeline.eval_dataset`.
    attack: how images are attacked.
    restarts: how often, at least 1.

  Returns:
    float32 [3, batch] as `image_scores` returns it: for each image the highest
    loss of all restarts, and 1 only if it is 1 at every restart.
  """
  images, labels = batch['image'], batch['label']

  def restarted(
    number: tf.Tensor, worst: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor]:
    seeds = randomness.fold(batch['seed'], randomness.RESTART + number)
    adversarial = attacks.attack(logits_fn, images, labels, attack, seeds)
    scores = image_scores(logits_fn(adversarial), labels)
    losses = tf.maximum(worst[:1], scores[:1])
    return number + 1, tf.concat(
      [losses, tf.minimum(worst[1:], scores[1:])], axis=0
    )

  # No loss is below 0.
  best = tf.concat(
    [tf.zeros([1, images.shape[0]]), tf.ones([2, images.shape[0]])], axis=0
  )
  start = tf.constant(0, tf.int64)
  # A loop, as many restarts of many steps would make a huge graph.
  _, worst = tf.while_loop(
    lambda number, _: number < restarts,
    restarted,
    (start, best),
    parallel_iterations=1,
  )
  return worst


def batch_sums(scores: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
  """Sums over a batch whose padding has weight 0.

  Args:
    scores: float32 [3, batch] of `image_scores`.
    weights: float32 [batch], 1 for an image and 0 for padding.

  Returns:
    float32 [4]: the sums of weights, losses, and images whose class is the
    first or among the first five.
  """
  values = tf.concat([tf.ones_like(scores[:1]), scores], 0)
  return tf.reduce_sum(values * weights, 1)


def means(totals: tf.Tensor) -> dict[str, float]:
  """Turns the sums over a whole test into its figures.

  Args:
    totals: float64 [4 or more]: `batch_sums`, added up.

  Returns:
    `num_examples`, a whole number; `loss`; `top_1_accuracy` and
    `top_5_accuracy`, fractions.
  """
  numbers = dict(zip(SUMS, totals.numpy().tolist()))
  count = numbers['num_examples']
  figures = {name: numbers[name] / count for name in SUMS[1:]}
  return {'num_examples': round(count), **figures}
