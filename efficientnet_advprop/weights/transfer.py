"""Starts a network from the weights of another run, or from published ones."""

from typing import Union

from absl import logging
import tensorflow as tf

from efficientnet_advprop.layers import normalization
from efficientnet_advprop.weights import loading
from efficientnet_advprop.weights import readers


def initialize(
  model: tf.keras.Model,
  source: Union[str, readers.Weights],
  raw: bool = False,
) -> None:
  """Gives a new network weights of any kind.

  A classifier for another number of classes starts at zero, so that the first
  loss is the logarithm of the number of classes and the first gradients leave
  the loaded weights as they are. Source: the fine-tuning code of Big Transfer
  (Kolesnikov et al., ECCV 2020), which starts its new head at zero. Norms of an
  auxiliary domain that the source lacks start as copies of its main norms;
  those of a domain that the new network lacks are left out. All else must be
  there in its shape.

  Args:
    model: the new network.
    source: as `readers.read` takes it, or what it has returned.
    raw: whether to take the weights that are not averaged. Networks are
      evaluated with the averaged ones.

  Raises:
    CheckpointError: the source cannot be read, or is of another network; one
      line names what is missing, unexpected or of another shape. The network is
      as it was.
  """
  weights = readers.read(source) if isinstance(source, str) else source
  values = loading.by_place(model, weights, raw)
  variables = loading.variables_by_place(model)
  norms = loading.norms(model)
  fresh: set[str] = set()  # What does not come from the source.
  of_head: set[str] = set()  # A classifier for other classes.
  notes = []

  bias = 'classifier/bias'
  if bias in values and values[bias].shape != tuple(variables[bias].shape):
    of_head = loading.within(['classifier'], variables)
    fresh |= of_head
    notes.append(
      f'the classifier starts at zero ({values[bias].size} classes there,'
      f' {variables[bias].shape[0]} here)'
    )

  copied = []
  for domain in model.auxiliary_domains:
    of_domain = loading.within(
      [f'{norm}/auxiliary/{domain}' for norm in norms], variables
    )
    if not of_domain & set(values):
      copied.append(domain)
      fresh |= of_domain
      notes.append(f'the norms of {domain} start as copies of the main ones')

  taken = {p: v for p, v in variables.items() if p not in fresh}
  given = loading.without_other_domains(values, variables)
  given = {place: value for place, value in given.items() if place not in fresh}
  run = weights.source if weights.naming is None else None
  loading.assign(
    taken,
    given,
    weights.source,
    loading.difference(model, taken, given, run),
  )
  for place in of_head:
    variables[place].assign(tf.zeros_like(variables[place]))
  for domain in copied:
    normalization.copy_main_norm(model, domain)
  loading.warn_of_pixels(model, weights)
  logging.info('%s', '; '.join([f'Starting from {weights.source}', *notes]))
