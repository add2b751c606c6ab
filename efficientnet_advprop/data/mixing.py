"""Mixup and CutMix: training images that are made of two.

Each image of a batch is mixed with its neighbour: rows 0 and 1, 2 and 3, and so
on. The order of training is random, so that the neighbour is a random image;
and a global batch is mixed in the same way on any number of replicas.

Sources: mixup, Zhang et al. (2018); CutMix, Yun et al. (2019).
"""

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import randomness

_VIEWS = ('image', 'augmented_image')


def mix(
  batch: dict[str, tf.Tensor], data: config_lib.DataConfig, num_classes: int
) -> dict[str, tf.Tensor]:
  """Mixes each image of a batch with its neighbour.

  Args:
    batch: `image`, and perhaps `augmented_image`, float32 [batch, height,
      width, 3]; `label`, int32 [batch]; `seed`, int32 [batch, 2]. The batch is
      even.
    data: `mixup_alpha` and `cutmix_alpha`. With both, half of the images are
      mixed in one way and half in the other.
    num_classes: number of classes.

  Returns:
    The batch with mixed images; with `soft_label`, float32 [batch, classes],
    the share of each class; and with the class of the larger part as `label`.
  """
  seeds, labels = batch['seed'], batch['label']
  image = batch['image']
  shape = image.shape[1:3]
  cuts = tf.fill(tf.shape(labels), bool(data.cutmix_alpha))
  if data.mixup_alpha and data.cutmix_alpha:
    cuts = randomness.uniform(seeds, [], randomness.MIXING_KIND) < 0.5
  own = tf.where(cuts, 1.0, _beta(seeds, data.mixup_alpha))
  mask = own[:, tf.newaxis, tf.newaxis]
  if data.cutmix_alpha:
    outside = 1 - _boxes(seeds, _beta(seeds, data.cutmix_alpha), shape)
    mask = tf.where(cuts[:, tf.newaxis, tf.newaxis], outside, mask)
    # A box at the border is smaller than drawn; the labels follow the pixels.
    own = tf.where(cuts, tf.reduce_mean(outside, [1, 2]), own)
  mask = mask[..., tf.newaxis]
  mixed = dict(batch)
  for view in _VIEWS:
    if view in batch:
      pixels = batch[view]
      mixed[view] = mask * pixels + (1 - mask) * _neighbours(pixels)
  others = _neighbours(labels)
  share = own[:, tf.newaxis]
  one_hot = tf.one_hot(labels, num_classes)
  soft = share * one_hot + (1 - share) * tf.one_hot(others, num_classes)
  larger = tf.where(own >= 0.5, labels, others)
  return {**mixed, 'soft_label': soft, 'label': larger}


def _neighbours(values: tf.Tensor) -> tf.Tensor:
  """Swaps rows 0 and 1, 2 and 3, and so on."""
  pairs = tf.reshape(values, [-1, 2, *values.shape[1:]])
  return tf.reshape(tf.reverse(pairs, [1]), values.shape)


def _beta(seeds: tf.Tensor, alpha: float) -> tf.Tensor:
  """Draws a number of Beta(alpha, alpha) for each example; 1 if alpha is 0."""
  if not alpha:
    return tf.ones(seeds.shape[:1])

  def draw(seed: tf.Tensor) -> tf.Tensor:
    gammas = tf.random.stateless_gamma([2], seed, alpha)
    # Two gammas of a small alpha may both vanish.
    return (gammas[0] + 1e-30) / (tf.reduce_sum(gammas) + 2e-30)

  folded = randomness.fold(seeds, randomness.MIXING)
  signature = tf.TensorSpec([], tf.float32)
  return tf.map_fn(draw, folded, fn_output_signature=signature)


def _boxes(
  seeds: tf.Tensor, kept: tf.Tensor, shape: tf.TensorShape
) -> tf.Tensor:
  """Draws boxes of the share 1 - kept of an image, cut off at its borders.

  Args:
    seeds: int32 [batch, 2].
    kept: shares outside of the boxes, float32 [batch].
    shape: height and width of the images.

  Returns:
    float32 [batch, height, width], 1 within the boxes.
  """
  centres = randomness.uniform(seeds, [2], randomness.MIXING_BOX)
  inside = []
  for axis, length in enumerate(shape):
    half = length * tf.sqrt(1 - kept) / 2
    centre = tf.floor(centres[:, axis] * length)
    first = tf.floor(tf.maximum(centre - half, 0))
    last = tf.floor(tf.minimum(centre + half, length))
    places = tf.range(length, dtype=tf.float32)[tf.newaxis]
    within = (places >= first[:, None]) & (places < last[:, None])
    inside.append(tf.cast(within, tf.float32))
  return inside[0][:, :, tf.newaxis] * inside[1][:, tf.newaxis]
