"""Training accuracies of Fast AdvProp with and without dealing its images.

With norms that see small groups, the attack on an image depends on the labels
of its neighbours. A network that is trained on the same groups can read the
labels from their batch statistics; on other groups it cannot.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import losses
from efficientnet_advprop import pretrained
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.data import sources
from efficientnet_advprop.methods import fast_advprop
from efficientnet_advprop.methods import gradients
from efficientnet_advprop.training import optimizers

# Imported after the package, which selects Keras 2.
import tensorflow as tf  # isort: skip

# The passes, in the order in which a step computes their losses.
_PASSES = ('noise', 'adversarial', 'clean')


class Accuracies(NamedTuple):
  """Training accuracies in percent, each pass in training mode."""

  clean: float
  noise: float
  adversarial: float


def measure(
  config: config_lib.Config,
  deals: bool,
  parts: int,
  report: Callable[[int, Accuracies], None],
) -> list[Accuracies]:
  """Trains by Fast AdvProp without an average, and counts right answers.

  Args:
    config: the run; its seed is that of the weights and of the order of images.
    deals: whether adversarial images are dealt over the norm groups.
    parts: how many equal parts of the run are reported.
    report: is called at the end of each part, with its last step.

  Returns:
    The means over each part.
  """
  tf.keras.utils.set_random_seed(config.train.seed)
  network = pretrained.build_model(
    config.model.name,
    config.data.num_classes,
    config.auxiliary_domains,
    **_network_settings(config),
  )
  optimizer = optimizers.create_optimizer(config, network)
  decayed = optimizers.penalized_variables(config, network)

  def penalty() -> tf.Tensor:
    return losses.weight_penalty(decayed, config.train.weight_decay)

  @tf.function(autograph=False)
  def step(batch: dict[str, tf.Tensor]) -> tf.Tensor:
    with _counted() as right, _dealing(deals):
      result = gradients.of_part(
        network, batch, config, optimizer.iterations, penalty=penalty
      )
    optimizer.apply_gradients(
      zip(result.gradients, network.trainable_variables)
    )
    return tf.stack([right[_PASSES.index(n)] for n in Accuracies._fields])

  source = sources.find(config.data, config.data.train_split)
  size = config.train_steps // parts
  batches = iter(pipeline.train_dataset(config, source))
  found = []
  for part in range(parts):
    shares = np.mean([step(next(batches)).numpy() for _ in range(size)], 0)
    found.append(Accuracies(*(100 * shares.astype(float)).round(2).tolist()))
    report((part + 1) * size, found[-1])
  return found


def _network_settings(config: config_lib.Config) -> dict[str, Any]:
  settings = dataclasses.asdict(config.model)
  del settings['name']
  return settings


@contextlib.contextmanager
def _dealing(deals: bool) -> Iterator[None]:
  """Leaves adversarial images in their groups while a step is traced."""

  def stay(values: Sequence[tf.Tensor], groups: int) -> list[tf.Tensor]:
    del groups
    return list(values)

  if deals:
    yield
    return
  with mock.patch.object(fast_advprop, 'deal', stay):
    yield


@contextlib.contextmanager
def _counted() -> Iterator[list[tf.Tensor]]:
  """Collects the accuracy of each pass while a step is traced."""
  right: list[tf.Tensor] = []
  cross_entropy = losses.cross_entropy

  def counting(
    labels: tf.Tensor, logits: tf.Tensor, smoothing: float = 0.0
  ) -> tf.Tensor:
    answers = tf.argmax(logits, -1, labels.dtype)
    right.append(tf.reduce_mean(tf.cast(answers == labels, tf.float32)))
    return cross_entropy(labels, logits, smoothing)

  with mock.patch.object(losses, 'cross_entropy', counting):
    yield right
  assert len(right) == len(_PASSES)
