"""PGD, I-FGSM, GD and FGSM under the L-infinity norm, as settings of one loop.

Paper, sections 5.1 and 5.4. Images stay float32 in [-1, 1] throughout, also
where the network computes in bfloat16.
"""

import functools
from typing import Callable, Optional

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import randomness

# Length of one 0-255 pixel level in images of the range [-1, 1].
PIXEL_LEVEL = 2 / 255


def attack(
  logits_fn: Callable[[tf.Tensor], tf.Tensor],
  images: tf.Tensor,
  labels: tf.Tensor,
  config: config_lib.AttackConfig,
  seed: tf.Tensor,
) -> tf.Tensor:
  """Makes adversarial images.

  Args:
    logits_fn: maps images to logits [batch, classes]; it decides on the domain
      and on the mode of the norms (`config.batch_norm` is the caller's to
      honour).
    images: [batch, height, width, 3] in [-1, 1].
    labels: true classes, integers [batch] in [0, classes).
    config: epsilon and step size in 0-255 units, steps, kind of attack.
    seed: int32 [batch, 2], a seed for each image, or [2], one for all.

  Returns:
    float32 images like `images`, in [-1, 1], at most epsilon away from them if
    the attack projects, and carrying no gradient.
  """
  images = tf.stop_gradient(tf.cast(images, tf.float32))
  seeds = randomness.per_example_seeds(seed, tf.shape(images)[0])
  epsilon = config.epsilon * PIXEL_LEVEL
  lower, upper = tf.constant(-1.0), tf.constant(1.0)
  if config.projects:
    lower = tf.maximum(images - epsilon, -1.0)
    upper = tf.minimum(images + epsilon, 1.0)
  adversarial = images
  if config.random_start:
    noise = _random_start(images, seeds, epsilon, config)
    adversarial = tf.clip_by_value(images + noise, -1.0, 1.0)
  # Away from the true class, or towards the wrong one.
  direction, numbers = 1.0, None
  if config.target == 'random':
    direction = -1.0
    numbers = randomness.uniform(seeds, [], randomness.ATTACK_TARGET)
  step = direction * config.step_size * PIXEL_LEVEL
  gradient_fn = functools.partial(_pixel_gradient, logits_fn)
  if config.batch_norm != 'train' and not tf.executing_eagerly():
    # One trace for all steps. Synchronized norms cannot run inside it.
    gradient_fn = tf.function(gradient_fn, autograph=False)
  # NOTE: unrolled, because synchronized norms cannot run in a tf.while_loop.
  for _ in range(config.num_steps):
    gradient = gradient_fn(adversarial, labels, numbers)
    adversarial = adversarial + step * tf.sign(gradient)
    adversarial = tf.clip_by_value(adversarial, lower, upper)
  return tf.stop_gradient(adversarial)


def _random_start(
  images: tf.Tensor,
  seeds: tf.Tensor,
  epsilon: float,
  config: config_lib.AttackConfig,
) -> tf.Tensor:
  """Uniform noise in [-epsilon, epsilon], zero for images that start clean."""
  shape = images.shape[1:]
  noise = randomness.uniform(seeds, shape, randomness.ATTACK_START)
  noise = (2 * noise - 1) * epsilon
  if not config.clean_start_probability:
    return noise
  # NOTE: drawn for each image; the first author's code draws for a batch.
  numbers = randomness.uniform(seeds, [1, 1, 1], randomness.CLEAN_START)
  starts_clean = numbers < config.clean_start_probability
  return tf.where(starts_clean, tf.zeros_like(noise), noise)


def _pixel_gradient(
  logits_fn: Callable[[tf.Tensor], tf.Tensor],
  images: tf.Tensor,
  labels: tf.Tensor,
  numbers: Optional[tf.Tensor],
) -> tf.Tensor:
  """Gradient of each image's own cross-entropy, towards its pixels alone.

  Args:
    logits_fn: the attacked network.
    images: [batch, height, width, 3].
    labels: true classes, integers [batch].
    numbers: float32 [batch] in [0, 1), each of which draws a wrong class to
      take the label's place; None keeps the labels.

  Returns:
    float32 like `images`.
  """
  with tf.GradientTape(watch_accessed_variables=False) as tape:
    tape.watch(images)
    logits = logits_fn(images)
    if numbers is not None:
      # Drawn here, where the number of classes is known without another pass.
      labels = _wrong_classes(labels, numbers, logits.shape[-1])
    # The sum keeps the images independent of each other and of batch size.
    # NOTE: hard labels, as in Madry et al., whom the paper follows; the loss
    # that trains the network smooths them.
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    loss = tf.reduce_sum(losses)
  return tape.gradient(loss, images)


def random_targets(
  labels: tf.Tensor, seeds: tf.Tensor, num_classes: int
) -> tf.Tensor:
  """Draws for each image a class other than its own, uniformly.

  Args:
    labels: integers [batch] in [0, num_classes).
    seeds: int32 [batch, 2].
    num_classes: at least 2.

  Returns:
    Integers like `labels`.
  """
  numbers = randomness.uniform(seeds, [], randomness.ATTACK_TARGET)
  return _wrong_classes(labels, numbers, num_classes)


def _wrong_classes(
  labels: tf.Tensor, numbers: tf.Tensor, num_classes: int
) -> tf.Tensor:
  """Maps each number in [0, 1) to a class other than the label."""
  if num_classes < 2:
    raise ValueError(
      "an attack with target='random' needs at least 2 classes; the network has"
      f' {num_classes}'
    )
  offsets = 1 + tf.cast(numbers * (num_classes - 1), labels.dtype)
  # A float32 just below 1 may round up to the number of classes.
  offsets = tf.minimum(offsets, num_classes - 1)
  return (labels + offsets) % num_classes
