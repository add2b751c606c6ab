"""PGD, I-FGSM, GD and FGSM under the L-infinity norm, as settings of one loop.

Paper, sections 5.1 and 5.4. Images stay float32 in [-1, 1] throughout, also
where the network computes in bfloat16.
"""

import functools
from typing import Callable, Optional, Union

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import losses
from efficientnet_advprop.base import randomness

# Length of one 0-255 pixel level in images of the range [-1, 1].
PIXEL_LEVEL = 2 / 255


def attack(
  logits_fn: Callable[[tf.Tensor], tf.Tensor],
  images: tf.Tensor,
  labels: tf.Tensor,
  config: config_lib.AttackConfig,
  seed: Optional[Union[int, tf.Tensor]] = None,
) -> tf.Tensor:
  """Makes adversarial images.

  Args:
    logits_fn: maps images to logits [batch, classes]. The caller chooses the
      domain, and must apply `config.batch_norm`.
    images: [batch, height, width, 3] in [-1, 1].
    labels: true classes, integers [batch] in [0, classes); or probabilities of
      all classes, floats [batch, classes], such as one-hot labels.
    config: epsilon and step size in 0-255 units, steps, kind of attack.
    seed: int32 [batch, 2], a seed for each image; or [2] or an int, one for
      all. An attack that draws no random numbers needs none.

  Returns:
    float32 images like `images`, in [-1, 1], at most epsilon away from them if
    the attack projects, and carrying no gradient.

  Raises:
    ValueError: labels or seed are of another shape or type, or there is no seed
      and the attack draws random numbers.
  """
  images = tf.stop_gradient(tf.cast(images, tf.float32))
  labels = _checked_labels(labels)
  seeds = _seeds(seed, tf.shape(images)[0], config)
  epsilon = config.epsilon * PIXEL_LEVEL
  lower, upper = tf.constant(-1.0), tf.constant(1.0)
  if config.projects:
    lower = tf.maximum(images - epsilon, -1.0)
    upper = tf.minimum(images + epsilon, 1.0)
  adversarial = images
  if config.random_start:
    noise = randomness.uniform(seeds, images.shape[1:], randomness.ATTACK_START)
    noise = (2 * noise - 1) * epsilon
    adversarial = tf.clip_by_value(images + noise, -1.0, 1.0)
  # Away from the true class, or towards the wrong one.
  direction, numbers = 1.0, None
  if config.target == 'random':
    direction = -1.0
    numbers = randomness.uniform(seeds, [], randomness.ATTACK_TARGET)
    if labels.shape.rank == 2:
      labels = tf.argmax(labels, -1, tf.int32)
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


def _checked_labels(labels: tf.Tensor) -> tf.Tensor:
  """Returns labels as a tensor, or raises ValueError."""
  labels = tf.convert_to_tensor(labels)
  is_soft = labels.dtype.is_floating and labels.shape.rank == 2
  if not is_soft and not (labels.dtype.is_integer and labels.shape.rank == 1):
    raise ValueError(
      f'labels: got {labels.dtype.name} {labels.shape}; allowed: integers'
      ' [batch], or probabilities (floats) [batch, classes]'
    )
  return labels


def _seeds(
  seed: Optional[Union[int, tf.Tensor]],
  batch_size: tf.Tensor,
  config: config_lib.AttackConfig,
) -> tf.Tensor:
  """Returns a seed for each image, int32 [batch, 2]."""
  if seed is None:
    if config.is_random:
      raise ValueError(
        'seed: got None; allowed: an int, int32 [2] or int32 [batch, 2], as'
        ' this attack draws random numbers (attack.name, attack.target)'
      )
    seed = 0
  numbers = tf.cast(tf.convert_to_tensor(seed), tf.int32)
  if numbers.shape.rank == 0:
    numbers = tf.stack([0, numbers])
  if numbers.shape.rank not in (1, 2) or numbers.shape[-1] != 2:
    raise ValueError(
      f'seed: got the shape {numbers.shape}; allowed: an int, [2], [batch, 2]'
    )
  return randomness.per_example_seeds(numbers, batch_size)


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
    labels: hard or soft ones.
    numbers: float32 [batch] in [0, 1), each of which draws a wrong class to
      take the place of a hard label; None keeps the labels.

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
    # NOTE: labels without smoothing, as in Madry et al., whom the paper
    # follows; the loss that trains the network smooths them.
    loss = tf.reduce_sum(losses.cross_entropy(labels, logits))
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
