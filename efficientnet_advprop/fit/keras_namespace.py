"""The Keras that a network belongs to, and where Keras 2 and 3 differ.

A process can hold both: `tf.keras` (Keras 2 or 3, as TensorFlow was set up),
the package `keras` (likewise) and `tf_keras` (always Keras 2). This room takes
everything from the one whose network it is given.
"""

from collections.abc import Iterator
import sys
from typing import Any, Optional

import tensorflow as tf


def of(network: Any) -> Any:
  """Returns the module, such as `tf.keras`, that a network was built with.

  Args:
    network: a Keras model.

  Raises:
    ValueError: it is no Keras model.
  """
  for namespace in loaded():
    if isinstance(network, namespace.Model):
      return namespace
  kind = f'{type(network).__module__}.{type(network).__name__}'
  raise ValueError(
    f'network: got an object of type {kind}; allowed: a Keras model, such as'
    ' keras.applications.ResNet50() or keras.Sequential([...])'
  )


def loaded() -> list[Any]:
  """Returns the Keras modules of this process, each version once."""
  own = tf.keras
  own.Model  # noqa: B018, it imports the package behind it.
  # `tf.keras` last: as Keras 3 it lacks `saving`.
  modules = [*map(sys.modules.get, ('keras', 'tf_keras')), own]
  found: list[Any] = []
  for module in modules:
    model = getattr(module, 'Model', None)  # None while it is being imported.
    if model is not None and all(model is not old.Model for old in found):
      found.append(module)
  return found


def is_keras_3(namespace: Any) -> bool:
  """Whether a module is Keras 3, which alone has `ops`."""
  return hasattr(namespace, 'ops')


def children(layer: Any) -> Iterator[Any]:
  """Yields the layers directly within a layer or network, in their order."""
  layers = getattr(layer, 'layers', None)
  if isinstance(layers, (list, tuple)) and layers:
    yield from layers
  yield from layer._flatten_layers(recursive=False, include_self=False)


def weight_penalties(layers: list[Any], is_3: bool) -> list[tf.Tensor]:
  """Returns the regularization losses of weights, each weight's once.

  Args:
    layers: layers and networks, with all that is in them.
    is_3: whether they are of Keras 3.

  Returns:
    Scalars.
  """
  seen: set[int] = set()
  penalties = []
  if is_3:
    for weight in (w for layer in layers for w in layer.trainable_weights):
      if weight.regularizer is not None and id(weight) not in seen:
        seen.add(id(weight))
        penalties.append(weight.regularizer(weight))
    return penalties
  for layer in layers:
    for inner in layer._flatten_layers():
      if id(inner) not in seen:
        seen.add(id(inner))
        penalties += [penalty() for penalty in inner._callable_losses]
  return [penalty for penalty in penalties if penalty is not None]


def call_losses(network: Any, is_3: bool) -> list[tf.Tensor]:
  """Returns the losses that the layers added in the network's last call.

  These are the penalties on activities and what layers give to `add_loss`.
  """
  losses: list[tf.Tensor] = []
  for layer in network._flatten_layers():
    added = layer._get_own_losses() if is_3 else layer._eager_losses
    losses += [loss for loss in added if tf.is_tensor(loss)]
  return losses


def update(
  optimizer: Any,
  loss: tf.Tensor,
  tape: tf.GradientTape,
  weights: list[Any],
  is_3: bool,
) -> None:
  """Makes one update of `weights` against the gradient of `loss`.

  Args:
    optimizer: of the same Keras as the weights; it may scale the loss.
    loss: computed under `tape`; this replica's share.
    tape: see `loss`.
    weights: those to update.
    is_3: whether they are of Keras 3.
  """
  if not is_3:
    optimizer.minimize(loss, weights, tape=tape)
    return
  if not weights:
    return  # Keras 2 takes a frozen network, too.
  with tape:
    loss = optimizer.scale_loss(loss)
  gradients = tape.gradient(loss, weights)
  optimizer.apply_gradients(zip(gradients, weights))


def computes_in_float16(network: Any) -> bool:
  """Whether a layer of a network computes in float16."""
  layers = network._flatten_layers()
  return any(
    getattr(layer, 'compute_dtype', None) == 'float16' for layer in layers
  )


def loss_scale(optimizer: Any, network: Any) -> Optional[tf.Tensor]:
  """Returns the factor by which an attack's loss is scaled up for float16.

  Args:
    optimizer: a LossScaleOptimizer, whose present scale is taken; with another
      one nothing halves a scale that is too large, so that it is a smaller one.
    network: that is attacked.

  Returns:
    A float32 scalar; None if neither has to do with float16.
  """
  if hasattr(optimizer, 'inner_optimizer'):
    if hasattr(optimizer, 'loss_scale'):  # Keras 2
      return optimizer.loss_scale
    return optimizer.scale_loss(tf.constant(1.0))
  if computes_in_float16(network):
    return tf.constant(2.0**10)
  return None


def input_spec(network: Any) -> Optional[tf.TensorSpec]:
  """Returns what the network expects as images; None if it is not known.

  Raises:
    ValueError: it takes more than one input or gives more than one output.
  """
  for name in ('inputs', 'outputs'):
    tensors = getattr(network, name, None)
    if tensors is not None and len(tensors) != 1:
      raise ValueError(
        f'network: {network.name} has {len(tensors)} {name}; allowed: one input'
        ' and one output'
      )
  inputs = getattr(network, 'inputs', None)
  if inputs:
    return tf.TensorSpec(inputs[0].shape, inputs[0].dtype)
  shape = (network.get_build_config() or {}).get('input_shape')
  if isinstance(shape, (list, tuple, tf.TensorShape)) and len(shape) > 1:
    return tf.TensorSpec([None, *tuple(shape)[1:]], tf.float32)
  return None
