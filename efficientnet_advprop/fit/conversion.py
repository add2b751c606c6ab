"""Auxiliary batch norms for a network that somebody else wrote.

Each batch norm of the network gets a twin for each auxiliary domain: another
layer of the same type and settings, which starts as a copy. The network itself
runs for every domain; within `Conversion.scope` each of its norms hands its
inputs to its twin instead. So all other weights are shared by construction,
however deep a norm sits, and the network stays its owner's: the same object,
names, variables, outputs and saved file.
"""

from collections.abc import Iterator, Sequence
import contextlib
import functools
import inspect
import re
import threading
from typing import Any, NamedTuple, Optional

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.fit import keras_namespace
from efficientnet_advprop.layers import normalization

# The suffixes by which moving statistics are known, whatever class holds them.
_MOVING = ('moving_mean', 'moving_variance')


class ConversionError(errors.UserError, ValueError):
  """A network that cannot be trained with auxiliary norms; one line says why.

  It is raised before anything has been updated.
  """


class Norm(NamedTuple):
  """A batch norm of the network."""

  path: str  # Names of the layers down to it, joined by slashes.
  layer: Any


class _Scope(NamedTuple):
  """A pass that runs: whose norms are replaced, and what is noted of it."""

  twins: dict[int, Any]  # By the id of the norm that each one replaces.
  calls: dict[int, list[Any]]  # `training` of each call, by the norm's id.


_active = threading.local()  # `scope`: of the pass that runs in this thread.


def find_norms(network: Any) -> list[Norm]:
  """Finds the batch norms of a network, each once, at any depth.

  Args:
    network: a Keras model whose variables exist.

  Returns:
    The norms in the order of the layers: every layer that has moving
    statistics, `AuxBatchNormalization` included.

  Raises:
    ConversionError: there are moving statistics that belong to no Keras layer.
  """
  found: list[Norm] = []
  seen = {id(network)}

  def visit(layer: Any, path: str) -> None:
    for child in keras_namespace.children(layer):
      if id(child) in seen:
        continue
      seen.add(id(child))
      inner = f'{path}/{child.name}' if path else child.name
      if _is_norm(child):
        found.append(Norm(inner, child))
      else:
        visit(child, inner)

  visit(network, '')
  known = {id(w) for norm in found for w in norm.layer.weights}
  for weight in network.weights:
    name = getattr(weight, 'path', weight.name).split(':')[0]
    if name.endswith(_MOVING) and id(weight) not in known:
      raise ConversionError(
        f'network: the moving statistics {name} belong to no layer that can be'
        ' reached, so that they cannot be kept for each domain; build the'
        ' network from Keras layers instead of a SavedModel or a module'
      )
  return found


def _is_norm(layer: Any) -> bool:
  return all(getattr(layer, name, None) is not None for name in _MOVING)


class Conversion:
  """A network together with the twins of its norms.

  Attributes:
    network: the user's network.
    domains: names of the auxiliary domains.
    norms: the norms that have twins.
    own: paths of the norms that hold the domains themselves.
    twins: for each domain the twins, in the order of `norms`.
  """

  def __init__(self, network: Any, domains: Sequence[str]):
    """Creates the twins; they start as copies of the network's norms.

    Args:
      network: a Keras model whose variables exist.
      domains: names of the auxiliary domains. None leaves the norms alone.

    Raises:
      ConversionError: the network cannot have these domains.
    """
    self.network = network
    self.domains = tuple(domains)
    self.passes_domain = takes_domain(network)
    self.norms: list[Norm] = []
    self.own: list[str] = []
    self.twins: dict[str, list[Any]] = {domain: [] for domain in domains}
    # `training` of each call of a norm: by domain and mode, then by its id.
    self.calls: dict[tuple[str, bool], dict[int, list[Any]]] = {}
    if not network.built:
      raise ConversionError(
        f'network: {network.name} has no variables yet; call it on a batch of'
        ' images, or build it, first'
      )
    norms = find_norms(network)
    if not norms and domains:
      raise ConversionError(
        f'network: {network.name} has no batch norm, and AdvProp is about'
        ' keeping the statistics of batch norms for each domain; use method='
        '"mixture" or "adversarial", or another network'
      )
    for norm in norms:
      self._add(norm)

  def _add(self, norm: Norm) -> None:
    known = getattr(norm.layer, 'auxiliary_domains', ())
    if known:
      missing = [domain for domain in self.domains if domain not in known]
      if missing:
        raise ConversionError(
          f'network: the norm {norm.path} knows the domains'
          f' {", ".join((config_lib.MAIN_DOMAIN, *known))}, not {missing[0]}'
        )
      self.own.append(norm.path)
      return
    if not self.domains:
      return
    if self.passes_domain:
      raise ConversionError(
        f'network: {self.network.name} was built without auxiliary domains;'
        f' build it with auxiliary_domains={self.domains}'
      )
    _follow_scopes(norm.layer)
    self.norms.append(norm)
    for domain in self.domains:
      self.twins[domain].append(_twin(norm, domain))

  def all_twins(self) -> list[Any]:
    """Returns the twins of all domains."""
    return [twin for twins in self.twins.values() for twin in twins]

  def follow_trainable(self) -> None:
    """Freezes the twins of frozen norms, and no others."""
    for twins in self.twins.values():
      for norm, twin in zip(self.norms, twins):
        if twin.trainable != norm.layer.trainable:
          twin.trainable = norm.layer.trainable

  def __call__(
    self,
    images: tf.Tensor,
    training: bool = False,
    domain: str = config_lib.MAIN_DOMAIN,
    seed: Optional[tf.Tensor] = None,
  ) -> Any:
    """Runs the network on images through the norms of a domain.

    Args:
      images: a batch, as the network takes it.
      training: whether in training mode.
      domain: `'main'` or an auxiliary one.
      seed: of dropout, for networks that take it: int32 [batch, 2].

    Returns:
      The outputs.
    """
    with self.scope(domain, training):
      if not self.passes_domain:
        return self.network(images, training=training)
      return self.network(images, training=training, domain=domain, seed=seed)

  @contextlib.contextmanager
  def scope(self, domain: str, training: bool) -> Iterator[None]:
    """Replaces the network's norms by the twins of a domain, in this thread.

    Args:
      domain: `'main'` or an auxiliary one.
      training: the mode in which the network is about to be called.

    Yields:
      Nothing.

    Raises:
      ConversionError: the domain is unknown.
    """
    twins: Sequence[Any] = ()
    if domain != config_lib.MAIN_DOMAIN:
      if domain not in self.twins:
        known = ', '.join((config_lib.MAIN_DOMAIN, *self.domains))
        raise ConversionError(f'domain: got {domain!r}; allowed: {known}')
      twins = self.twins[domain]
    pairs = {id(norm.layer): twin for norm, twin in zip(self.norms, twins)}
    calls = self.calls.setdefault((domain, bool(training)), {})
    outer = getattr(_active, 'scope', None)
    _active.scope = _Scope(pairs, calls)
    try:
      with normalization.domain_scope(domain):
        yield
    finally:
      _active.scope = outer

  def trace_once(self, images: tf.TensorSpec) -> None:
    """Traces a training pass for `uses`, unless one has run already."""
    if (config_lib.MAIN_DOMAIN, True) in self.calls:
      return
    run = tf.function(lambda x: self(x, training=True))
    run.get_concrete_function(images)

  def check(self) -> None:
    """Checks what the passes so far have done with the norms.

    Raises:
      ConversionError: a norm took part in the passes of one domain and not in
        those of another, or moves its statistics in inference mode.
    """
    called = self._called()
    main = called.pop(config_lib.MAIN_DOMAIN, None)
    for norm in self.norms:
      for domain, ids in called.items():
        if main is not None and (id(norm.layer) in main) != (
          id(norm.layer) in ids
        ):
          raise ConversionError(
            f'network: the norm {norm.path} does not follow the domain'
            f' {domain}, because a tf.function around it keeps the domain of'
            ' its first call; take the tf.function away'
          )
      for (_, training), calls in self.calls.items():
        modes = calls.get(id(norm.layer), ())
        if not training and any(mode is True for mode in modes):
          raise ConversionError(
            f'network: the norm {norm.path} is called with training=True even'
            ' in inference mode, so that the attack would move its statistics;'
            ' leave training to the network'
          )

  def _called(self) -> dict[str, set[int]]:
    """The ids of the norms that took part in the passes of each domain."""
    called: dict[str, set[int]] = {}
    for (domain, _), calls in self.calls.items():
      called.setdefault(domain, set()).update(calls)
    return called

  def uses(self, norm: Norm) -> Optional[list[Any]]:
    """Returns `training` of each call in a training pass; None if unknown."""
    calls = self.calls.get((config_lib.MAIN_DOMAIN, True))
    return None if calls is None else calls.get(id(norm.layer), [])


def takes_domain(network: Any) -> bool:
  """Whether a network passes `domain` and `seed` on, as this project's do."""
  parameters = inspect.signature(network.call).parameters
  return 'domain' in parameters and 'seed' in parameters


@contextlib.contextmanager
def backward() -> Iterator[None]:
  """Refuses norms that a backward pass calls again, without their domain."""
  outer = getattr(_active, 'refuses', False)
  _active.refuses = True
  try:
    yield
  finally:
    _active.refuses = outer


def _follow_scopes(norm: Any) -> None:
  """Makes a norm hand its inputs to its twin within `Conversion.scope`.

  Only this instance changes, and nothing that Keras saves of it.
  """
  original = norm.call
  if hasattr(original, 'follows_scopes'):
    return
  signature = inspect.signature(original)

  @functools.wraps(original)
  def call(*args: Any, **kwargs: Any) -> Any:
    scope = getattr(_active, 'scope', None)
    if scope is None:
      if getattr(_active, 'refuses', False):
        raise ConversionError(
          f'network: the norm {norm.name} is computed again in the backward'
          ' pass, where its domain is not known; switch recomputation'
          ' (recompute_grad, RematScope) off'
        )
      return original(*args, **kwargs)
    training = signature.bind(*args, **kwargs).arguments.get('training')
    scope.calls.setdefault(id(norm), []).append(training)
    return scope.twins.get(id(norm), original)(*args, **kwargs)

  call.follows_scopes = True  # type: ignore[attr-defined]
  norm.call = call


def _twin(norm: Norm, domain: str) -> Any:
  """Creates a norm of the same type and settings, as a copy."""
  layer = norm.layer
  try:
    settings = layer.get_config()
    settings['name'] = re.sub('[^A-Za-z0-9_.-]', '_', f'{norm.path}_{domain}')
    twin = type(layer).from_config(settings)
    if getattr(layer, 'synchronized', False) and not twin.synchronized:
      # Keras 2 leaves it out of the configuration.
      twin = type(layer).from_config({**settings, 'synchronized': True})
    with tf.name_scope(settings['name']):
      twin.build(_input_shape(layer))
    twin.set_weights(layer.get_weights())
  except (NotImplementedError, TypeError, ValueError) as error:
    reason = str(error).splitlines()[0]
    raise ConversionError(
      f'network: the norm {norm.path} ({type(layer).__name__}) cannot be'
      f' copied by get_config and from_config: {reason}'
    ) from error
  twin.trainable = layer.trainable
  return twin


def _input_shape(layer: Any) -> tuple[Optional[int], ...]:
  """The shape that a built norm was built for, batch first."""
  spec = layer.input_spec
  if spec is not None and spec.ndim:
    axes = {axis % spec.ndim: size for axis, size in spec.axes.items()}
    return tuple(axes.get(axis) for axis in range(spec.ndim))
  return (layer.get_build_config() or {})['input_shape']
