"""What labels and outputs mean to the attack: classes and logits, or neither.

A random target needs classes, hence a compiled cross-entropy of classes. The
true label as target needs no more than the compiled loss.
"""

from typing import Any, Callable, NamedTuple, Optional

import tensorflow as tf

from efficientnet_advprop import attacks
from efficientnet_advprop import config as config_lib
from efficientnet_advprop import losses

# Losses of classes, and whether their labels are integers.
_CLASS_LOSSES = {
  'sparse_categorical_crossentropy': True,
  'categorical_crossentropy': False,
  'categorical_focal_crossentropy': False,
}
# The smallest number that float32 holds with full precision.
_TINY = 1.1754944e-38


class Classes(NamedTuple):
  """How the labels and outputs of a classifier are to be read."""

  are_integers: bool  # Labels; otherwise they are a share of each class.
  from_logits: bool  # Outputs; otherwise they are probabilities.


def classes_of(loss: Any) -> Optional[Classes]:
  """Reads what a compiled loss says of labels and outputs.

  Args:
    loss: as given to `compile`: a name, a function or a loss object.

  Returns:
    None if it is no cross-entropy of classes, as far as is known.
  """
  name = _snake_case(_name(loss))
  if name not in _CLASS_LOSSES:
    return None
  settings = loss.get_config() if hasattr(loss, 'get_config') else {}
  return Classes(_CLASS_LOSSES[name], bool(settings.get('from_logits')))


def _name(loss: Any) -> str:
  if isinstance(loss, str):
    return loss
  return getattr(loss, '__name__', type(loss).__name__)


def _snake_case(name: str) -> str:
  return ''.join(f'_{c.lower()}' if c.isupper() else c for c in name).lstrip(
    '_'
  )


def read(labels: Any, loss: Any) -> dict[str, Any]:
  """Returns the labels as the training methods take them.

  Args:
    labels: as `fit` is given them: integers [batch] or [batch, 1], shares
      [batch, classes], or anything else that the loss takes.
    loss: as given to `compile`.

  Returns:
    `label`: int32 [batch] where there are classes, else the labels themselves;
    `soft_label`: the shares, if they are such.
  """
  labels = tf.convert_to_tensor(labels)
  classes, shape = classes_of(loss), labels.shape
  if classes is None or shape.rank is None:
    return {'label': labels}
  if classes.are_integers:
    is_list = shape.rank == 1 or (shape.rank == 2 and shape[1] == 1)
    hard = tf.cast(tf.reshape(labels, [-1]), tf.int32)
    return {'label': hard if is_list else labels}
  if shape.rank != 2:
    return {'label': labels}
  shares = tf.cast(labels, tf.float32)
  return {'label': tf.argmax(shares, -1, tf.int32), 'soft_label': shares}


def attack_loss(
  loss: Any,
  data_loss: Callable[[Any, Any], tf.Tensor],
  scale: Optional[tf.Tensor] = None,
) -> attacks.LossFn:
  """Returns the loss that the attack raises or lowers.

  For a classifier it is the cross-entropy that this project's trainer attacks
  with, however the outputs come; otherwise the compiled loss.

  Args:
    loss: as given to `compile`.
    data_loss: maps labels and outputs to the compiled loss.
    scale: factor of the mean over images, for networks that compute in float16;
      None where its size does not matter.

  Returns:
    A function of labels, as from `read`, and outputs.
  """
  classes = classes_of(loss)

  def loss_fn(labels: Any, outputs: Any) -> tf.Tensor:
    if classes is not None and outputs.shape.rank == 2:
      logits = _logits(outputs, classes)
      each = losses.cross_entropy(labels, logits)
      return tf.reduce_sum(each) if scale is None else tf.reduce_mean(each)
    return data_loss(labels, outputs)

  return loss_fn if scale is None else attacks.scaled_loss(scale, loss_fn)


def check_target(loss: Any, target: str, labels: Any) -> None:
  """Checks that a random target finds classes.

  Args:
    loss: as given to `compile`.
    target: of the attack.
    labels: as from `read`.

  Raises:
    ConfigError: the target is random, and loss or labels know no classes.
  """
  if target != 'random':
    return
  label = labels['label']
  if classes_of(loss) is None or label.shape.rank != 1:
    raise config_lib.ConfigError(
      'attack.target',
      target,
      f'label, because {_name(loss)} on labels of the shape'
      f" {tuple(label.shape)} knows no classes: AttackConfig(target='label'),"
      ' or a categorical_crossentropy, sparse or not, on outputs'
      ' [batch, classes]',
    )


def _logits(outputs: tf.Tensor, classes: Classes) -> tf.Tensor:
  """Returns what a softmax turns into the network's probabilities.

  The logarithm of a probability is such a logit. It is not clipped at Keras's
  1e-7: below it a random target would give no gradient.
  """
  outputs = tf.cast(outputs, tf.float32)
  if classes.from_logits:
    return outputs
  return tf.math.log(tf.maximum(outputs, _TINY))
