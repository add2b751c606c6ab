"""One update of an AdvPropModel: its passes, losses, gradients and metrics."""

import functools
import threading
from typing import Any

import tensorflow as tf

from efficientnet_advprop.fit import conversion
from efficientnet_advprop.fit import keras_namespace
from efficientnet_advprop.fit import setup as setup_lib
from efficientnet_advprop.methods import gradients
from efficientnet_advprop.methods import passes as passes_lib


class Step:
  """Makes updates of a model, and keeps the means of their losses.

  It is no Keras object, so that Keras neither tracks nor saves what it holds.

  Attributes:
    trackers: the means over an epoch, by the name of a loss.
  """

  def __init__(self, setup: setup_lib.Setup):
    """Creates the trackers, in the scope of the model's variables."""
    mean = setup.namespace.metrics.Mean
    names = 'loss', *gradients.loss_names(setup.config)
    self.trackers = {name: mean(name=name) for name in names}
    self._setup = setup
    self._local = threading.local()  # Its `only_data` is that of this thread.

  @property
  def only_data(self) -> bool:
    """Whether the loss is being computed without the network's penalties."""
    return getattr(self._local, 'only_data', False)

  def __call__(self, model: Any, data: Any) -> dict[str, tf.Tensor]:
    """Makes one update from the sum of the passes' losses.

    Args:
      model: an AdvPropModel.
      data: images, labels and perhaps weights, as `fit` takes them.

    Returns:
      The means of the losses, and the compiled metrics on clean images.

    Raises:
      ValueError: see `AdvPropModel.fit`.
    """
    setup = self._setup
    images, labels, weights = setup.namespace.utils.unpack_x_y_sample_weight(
      data
    )
    missing = 'labels' if labels is None else 'compile(loss=...)'
    if labels is None or setup.loss is None:
      raise ValueError(f'fit: {missing} missing; training needs both')
    step = tf.convert_to_tensor(model.optimizer.iterations)
    batch = setup.batch(images, labels, step)
    data_loss = functools.partial(self.data_loss, model)
    made = setup.passes(batch, step, data_loss, model.optimizer)
    with tf.GradientTape() as tape:
      outputs, losses, penalties = self._run(
        model, made, labels, weights, batch
      )
      weighted = [part.weight * loss for part, loss in zip(made, losses)]
      total = tf.add_n([*weighted, *penalties])
    setup.converted.check()
    with conversion.backward():
      keras_namespace.update(
        model.optimizer, total, tape, model.trainable_variables, setup.is_3
      )
    logs = self._track(total, losses, batch)
    metrics = model.compute_metrics(batch['image'], labels, outputs, weights)
    return {**logs, **{k: v for k, v in metrics.items() if k not in logs}}

  def _run(
    self,
    model: Any,
    made: Any,
    labels: Any,
    weights: Any,
    batch: passes_lib.Batch,
  ) -> tuple[Any, list[tf.Tensor], list[tf.Tensor]]:
    """Runs passes through the network in training mode.

    Returns:
      The first outputs; the loss of each pass; the penalties on weights, once,
      and on activities, of each pass. All losses are this replica's shares.
    """
    setup = self._setup
    first, losses, penalties = None, [], []
    size = batch['image'].shape[0] or tf.shape(batch['image'])[0]
    for part in made:
      outputs = setup.converted(part.images, True, part.domain, part.seeds)
      pieces = [outputs]
      if part.name == 'mixture':  # It holds the batch twice.
        pieces = [outputs[:size], outputs[size:]]
      losses.append(
        tf.add_n(
          [self.data_loss(model, labels, piece, weights) for piece in pieces]
        )
      )
      penalties += keras_namespace.call_losses(model.network, setup.is_3)
      first = pieces[0] if first is None else first
    layers = [model.network, *setup.converted.all_twins()]
    penalties += keras_namespace.weight_penalties(layers, setup.is_3)
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    shares = [tf.cast(loss, tf.float32) / replicas for loss in penalties]
    return first, losses, shares

  def _track(
    self, total: tf.Tensor, losses: list[tf.Tensor], batch: passes_lib.Batch
  ) -> dict[str, tf.Tensor]:
    """Returns the means of the losses over the epoch so far."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    size = tf.shape(batch['image'])[0]
    for tracker, share in zip(self.trackers.values(), (total, *losses)):
      tracker.update_state(share * replicas, sample_weight=size)
    return {name: tracker.result() for name, tracker in self.trackers.items()}

  def data_loss(
    self, model: Any, labels: Any, outputs: Any, weights: Any
  ) -> tf.Tensor:
    """Returns the compiled loss, without penalties, as this replica's share.

    Args:
      model: an AdvPropModel.
      labels: as `fit` takes them.
      outputs: of the network.
      weights: of the samples, or None.
    """
    self._local.only_data = True
    try:
      loss = model.compute_loss(y=labels, y_pred=outputs, sample_weight=weights)
      return tf.cast(loss, tf.float32)
    finally:
      self._local.only_data = False
