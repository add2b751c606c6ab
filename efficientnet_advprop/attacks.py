"""PGD, I-FGSM, GD and FGSM under the L-infinity norm, as settings of one loop.

Paper, sections 5.1 and 5.4. Images stay float32 in their pixel range
throughout, also where the network computes in bfloat16 or float16. In float16
small gradients become 0, and their signs with them: `scaled_loss` prevents it.
"""

import functools
from typing import Any, Callable, Optional, Union

import numpy as np
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import losses
from efficientnet_advprop.base import randomness

# Length of one 0-255 pixel level in images of the range [-1, 1].
PIXEL_LEVEL = 2 / 255

# Maps labels and the network's outputs to a scalar.
LossFn = Callable[[Any, Any], tf.Tensor]


def attack(
  logits_fn: Callable[[tf.Tensor], tf.Tensor],
  images: tf.Tensor,
  labels: tf.Tensor,
  config: config_lib.AttackConfig,
  seed: Optional[Union[int, tf.Tensor]] = None,
  pixel_range: tuple[Any, Any] = (-1.0, 1.0),
  loss_fn: Optional[LossFn] = None,
) -> tf.Tensor:
  """Makes adversarial images.

  Args:
    logits_fn: maps images to logits [batch, classes]. The caller chooses the
      domain, and must apply `config.batch_norm`.
    images: [batch, height, width, channels] in `pixel_range`.
    labels: true classes, integers [batch] in [0, classes); or probabilities of
      all classes, floats [batch, classes], such as one-hot labels.
    config: epsilon and step size in 0-255 units, steps, kind of attack.
    seed: int32 [batch, 2], a seed for each image; or [2] or an int, one for
      all. An attack that draws no random numbers needs none.
    pixel_range: the values of black and white, each a number or one for each
      channel. A level of 0-255 is a 255th of the distance between them.
    loss_fn: maps labels and what `logits_fn` returns to the scalar that the
      attack raises for the label, or lowers for a random target. None is the
      sum of the images' cross-entropies. With a loss_fn, labels and outputs may
      be of any kind; only a random target still needs classes.

  Returns:
    float32 images like `images`, in `pixel_range`, at most epsilon away from
    them if the attack projects, and carrying no gradient.

  Raises:
    ValueError: labels or seed are of another shape or type, there is no seed
      and the attack draws random numbers, or the network passes no gradient on.
  """
  images = tf.stop_gradient(tf.cast(images, tf.float32))
  if loss_fn is None or config.target == 'random':
    labels = _checked_labels(labels)
  seeds = _seeds(seed, tf.shape(images)[0], config)
  ends = [np.asarray(end, np.float64) for end in pixel_range]
  level = (ends[1] - ends[0]) / 255
  low, high = map(np.float32, ends)
  epsilon = np.float32(config.epsilon * level)
  lower, upper = tf.constant(low), tf.constant(high)
  if config.projects:
    lower = tf.maximum(images - epsilon, low)
    upper = tf.minimum(images + epsilon, high)
  adversarial = images
  if config.random_start:
    noise = (2 * _uniform_like(images, seeds) - 1) * epsilon
    adversarial = tf.clip_by_value(images + noise, low, high)
  # Away from the true class, or towards the wrong one.
  direction, numbers = 1.0, None
  if config.target == 'random':
    direction = -1.0
    numbers = randomness.uniform(seeds, [], randomness.ATTACK_TARGET)
    if labels.shape.rank == 2:
      labels = tf.argmax(labels, -1, tf.int32)
  step = np.float32(direction * config.step_size * level)
  gradient_fn = functools.partial(
    _pixel_gradient, logits_fn, loss_fn or _sum_of_losses
  )
  if config.batch_norm != 'train' and not tf.executing_eagerly():
    # One trace for all steps. Synchronized norms cannot run inside it. Copies
    # of it in the graph for each further step would take memory: 70 MB for four
    # of MobileNetV2.
    is_shared = {'_noinline': True} if config.num_steps > 1 else None
    gradient_fn = tf.function(
      gradient_fn, autograph=False, experimental_attributes=is_shared
    )
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


def _uniform_like(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
  """Uniform numbers in [0, 1), of the shape of the images."""
  shape = images.shape[1:]
  if not shape.is_fully_defined():
    shape = tf.shape(images)[1:]
  numbers = randomness.uniform(seeds, shape, randomness.ATTACK_START)
  return tf.ensure_shape(numbers, images.shape)


def scaled_loss(scale: Any, loss_fn: Optional[LossFn] = None) -> LossFn:
  """Returns a multiple of a loss, for a network that computes in float16.

  The attack takes the signs of gradients, so that it is the same attack but for
  gradients that float16 rounds to 0 without the scale. NOTE: a scale so large
  that gradients overflow gives images that are not finite.

  Args:
    scale: the factor, a number or a float32 scalar.
    loss_fn: as `attack` takes it.
  """
  loss_fn = loss_fn or _sum_of_losses

  def scaled(labels: Any, outputs: Any) -> tf.Tensor:
    return scale * tf.cast(loss_fn(labels, outputs), tf.float32)

  return scaled


def _sum_of_losses(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
  """Returns the sum of the images' own losses.

  A sum keeps the images independent of each other and of the batch size.
  """
  # NOTE: labels without smoothing, as in Madry et al., whom the paper follows;
  # the loss that trains the network smooths them.
  return tf.reduce_sum(losses.cross_entropy(labels, logits))


def _pixel_gradient(
  logits_fn: Callable[[tf.Tensor], tf.Tensor],
  loss_fn: LossFn,
  images: tf.Tensor,
  labels: tf.Tensor,
  numbers: Optional[tf.Tensor],
) -> tf.Tensor:
  """Gradient of the loss towards the images' pixels alone.

  Args:
    logits_fn: the attacked network.
    loss_fn: maps labels and logits to a scalar.
    images: [batch, height, width, channels].
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
    loss = loss_fn(labels, logits)
  gradient = tape.gradient(loss, images)
  if gradient is None:
    raise ValueError('attack: the network passes no gradient on to its images')
  return gradient


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
