"""Starting a run from the weights of another one."""

import collections
from collections.abc import Iterable
from typing import Any

from absl import logging
import tensorflow as tf

from efficientnet_advprop.layers import normalization
from efficientnet_advprop.weights import checkpoints


def initialize(model: tf.keras.Model, checkpoint: str) -> None:
  """Gives a new network the averaged weights of another run.

  The averaged ones are those that the other run is evaluated with. A classifier
  for another number of classes starts at zero, so that the first loss is the
  logarithm of the number of classes and the first gradients leave the loaded
  weights as they are. Source: the fine-tuning code of Big Transfer (Kolesnikov
  et al., ECCV 2020), which starts its new head at zero. Norms of
  an auxiliary domain that the other network lacks start as copies of its main
  norms; those of a domain that the new network lacks are left out. All else
  must be there in its shape.

  Args:
    model: the new network.
    checkpoint: a model_dir, its `checkpoints` folder, or the path of one
      checkpoint without the suffixes of its files.

  Raises:
    CheckpointError: the checkpoint cannot be read, or is of another network;
      one line names what is missing, left over or of another shape. The network
      is as it was.
  """
  values = checkpoints.read_average(checkpoint)
  places = _places(model)
  variables = {p: v for p, v in places.items() if isinstance(v, tf.Variable)}
  anew: set[str] = set()  # What does not come from the checkpoint.
  of_head: set[str] = set()  # Of a classifier for other classes.
  notes = []

  (head,) = (p for p, layer in places.items() if layer is model.classifier)
  bias = f'{head}/bias'
  if bias in values and values[bias].shape != tuple(variables[bias].shape):
    of_head = _within([head], variables)
    anew |= of_head
    notes.append(
      f'the classifier starts at zero ({len(values[bias])} classes there,'
      f' {variables[bias].shape[0]} here)'
    )

  norms = [
    f'{place}/auxiliary'
    for place, layer in places.items()
    if isinstance(layer, normalization.AuxBatchNormalization)
  ]
  copied = []
  for domain in model.auxiliary_domains:
    of_domain = _within([f'{norm}/{domain}' for norm in norms], variables)
    if not of_domain & set(values):
      copied.append(domain)
      anew |= of_domain
      notes.append(f'the norms of {domain} start as copies of the main ones')
  unused = anew | (_within(norms, values) - set(variables))

  checkpoints.assign(
    {place: v for place, v in variables.items() if place not in anew},
    {place: value for place, value in values.items() if place not in unused},
    checkpoint,
  )
  for place in of_head:
    variables[place].assign(tf.zeros_like(variables[place]))
  for domain in copied:
    normalization.copy_main_norm(model, domain)
  logging.info('%s', '; '.join([f'Starting from {checkpoint}', *notes]))


def _places(model: tf.keras.Model) -> dict[str, Any]:
  """The parts of a network by their places, as checkpoints name them.

  A checkpoint names a part by the attributes that lead to it, on the shortest
  way, joined by slashes.
  """
  view = tf.train.TrackableView(model)
  places: dict[str, Any] = {}
  seen, queue = {id(model)}, collections.deque([('', model)])
  while queue:
    prefix, part = queue.popleft()
    for name, child in view.children(part).items():
      if id(child) not in seen:
        seen.add(id(child))
        places[prefix + name] = child
        queue.append((f'{prefix}{name}/', child))
  return places


def _within(places: Iterable[str], names: Iterable[str]) -> set[str]:
  """Those of the names that lie below one of the places."""
  prefixes = tuple(f'{place}/' for place in places)
  return {name for name in names if name.startswith(prefixes)}
