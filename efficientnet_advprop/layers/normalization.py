"""Batch normalization with separate variables for each domain."""

from collections.abc import Iterator, Sequence
import contextlib
import threading
from typing import Any, NamedTuple, Optional

import tensorflow as tf

from efficientnet_advprop import config
from efficientnet_advprop.base import variables

# What a norm holds for a domain.
NORM_VARIABLES = ('gamma', 'beta', 'moving_mean', 'moving_variance')


class Move(NamedTuple):
  """A move of moving statistics that is yet to be made."""

  norm: 'AuxBatchNormalization'
  domain: str
  mean: tf.Tensor
  variance: tf.Tensor


# The moves that are held back; a replica has a thread of its own.
_held = threading.local()


@contextlib.contextmanager
def held_moves() -> Iterator[list[Move]]:
  """Collects the moves of statistics instead of making them.

  Whoever runs layers more than once, to compute again what was not stored,
  makes them once: `move.norm.move_statistics(*move[1:])`.
  """
  outer = getattr(_held, 'moves', None)
  moves: list[Move] = []
  _held.moves = moves
  try:
    yield moves
  finally:
    _held.moves = outer


_scoped = threading.local()


@contextlib.contextmanager
def domain_scope(domain: str) -> Iterator[None]:
  """Sets the domain of the norms that are called without one.

  Keras's Functional and Sequential networks, and networks that somebody else
  wrote, do not pass a `domain` on to their layers. Within this context each
  `AuxBatchNormalization` that is called without a domain takes this one; a
  domain that is passed counts more. Scopes nest. A scope belongs to the thread
  that opened it, so that each replica has its own, and ends with the context:
  the network remembers nothing.

  A `tf.function` keeps the domain that it was traced in: open the scope inside
  the function, not around it.

  Args:
    domain: `'main'` or a name among the norms' auxiliary domains.

  Yields:
    Nothing.
  """
  outer = getattr(_scoped, 'domain', None)
  _scoped.domain = domain
  try:
    yield
  finally:
    _scoped.domain = outer


def current_domain() -> str:
  """Returns the domain of the innermost `domain_scope`, or `'main'`."""
  return getattr(_scoped, 'domain', None) or config.MAIN_DOMAIN


@contextlib.contextmanager
def group_scope(groups: int) -> Iterator[None]:
  """Sets the number of groups whose statistics norms keep separate.

  In training mode the rows of a batch, over all replicas, form this many
  groups of consecutive rows, and each is normalized by its own mean and
  variance. The moving statistics move by the means over the groups. So the
  statistics are those of smaller batches, such as those of one GPU among
  several. Like `domain_scope`, a scope belongs to the thread that opened it;
  gradients of recomputed blocks need it open, too.

  Args:
    groups: number of groups in a batch. It divides the number of replicas or is
      divided by it; a replica's rows divide by the number of its groups.

  Yields:
    Nothing.
  """
  outer = current_groups()
  _scoped.groups = groups
  try:
    yield
  finally:
    _scoped.groups = outer


def current_groups() -> int:
  """Returns the number of groups of the innermost `group_scope`, or 1."""
  return getattr(_scoped, 'groups', 1)


class AuxBatchNormalization(tf.keras.layers.BatchNormalization):
  """Batch normalization with a main domain and named auxiliary ones.

  Each domain has its own gamma, beta, moving mean and moving variance (paper,
  section 4.2). The main domain's are those of the base class, so their names
  and order are a plain batch norm's; without auxiliary domains this is one.

  `call(inputs, training=None, domain=None)` normalizes `inputs`, whose last
  axis is the channel, with the variables of `domain`; in training mode only the
  moving statistics of that domain move. None is the domain of the enclosing
  `domain_scope`, or `'main'` where there is none.

  NOTE: the moving variance follows the biased variance of the batch, as in the
  official TPU code and in Keras's synchronized norm. Keras's norm for one
  device keeps the unbiased one, so that the same global batch would give other
  statistics on one device than on several.
  """

  def __init__(
    self,
    auxiliary_domains: Sequence[str] = ('adversarial',),
    momentum: float = 0.99,
    epsilon: float = 1e-3,
    synchronized: bool = False,
    **kwargs: Any,
  ):
    """Creates the layer; the variables of all domains come with `build`.

    Args:
      auxiliary_domains: names of the domains besides `'main'`.
      momentum: share of the old value when a moving statistic moves.
      epsilon: added to the variance.
      synchronized: whether batch statistics span all replicas of the strategy.
      **kwargs: passed on to tf.keras.layers.BatchNormalization.

    Raises:
      ValueError: a domain is named twice or is called `'main'`, or `fused` is
        set. `build` raises it for an `axis` that is not the last one.
      ImportError: TensorFlow brings Keras 3.
    """
    if hasattr(tf.keras, 'ops'):  # A module that only Keras 3 has.
      raise ImportError(
        'the networks of efficientnet_advprop need Keras 2: install tf-keras'
        ' and set TF_USE_LEGACY_KERAS=1 before TensorFlow is imported'
        ' (AdvPropModel trains Keras 3 networks, too)'
      )
    settings = dict(
      momentum=momentum, epsilon=epsilon, synchronized=synchronized, **kwargs
    )
    if settings.get('fused'):
      raise ValueError(
        'fused: got True; allowed: None, as the layer chooses its own kernels'
      )
    # Inference is Keras's, in the form that holds for inputs of any rank.
    settings['fused'] = False
    super().__init__(**settings)
    self.auxiliary_domains = tuple(auxiliary_domains)
    known = (config.MAIN_DOMAIN, *self.auxiliary_domains)
    if len(set(known)) < len(known):
      raise ValueError(f'auxiliary_domains repeat a name: {", ".join(known)}')
    settings.pop('name', None)
    self.auxiliary: dict[str, tf.keras.layers.BatchNormalization] = {
      domain: tf.keras.layers.BatchNormalization(name=domain, **settings)
      for domain in self.auxiliary_domains
    }

  def build(self, input_shape: tf.TensorShape) -> None:
    super().build(input_shape)
    if list(self.axis) != [len(input_shape) - 1]:
      raise ValueError(
        f'axis: got {self.axis[0]}; allowed: -1, the last axis, which holds the'
        ' channels'
      )
    for domain, norm in self.auxiliary.items():
      # A variable that is first created in a later trace would fail there.
      with tf.name_scope(domain):
        norm.build(input_shape)

  def norm_of(self, domain: str) -> tf.keras.layers.BatchNormalization:
    """The norm that holds the variables of `domain` (self for `'main'`)."""
    if domain == config.MAIN_DOMAIN:
      return self
    if domain not in self.auxiliary_domains:
      known = ', '.join((config.MAIN_DOMAIN, *self.auxiliary_domains))
      raise ValueError(f'domain: got {domain!r}; this layer knows {known}')
    return self.auxiliary[domain]

  def call(
    self,
    inputs: tf.Tensor,
    training: Optional[bool] = None,
    domain: Optional[str] = None,
  ) -> tf.Tensor:
    domain = domain or current_domain()
    norm = self.norm_of(domain)
    if training and self.trainable:
      outputs, mean, variance = self.normalize(inputs, domain)
      self.move_statistics(domain, mean, variance)
      return outputs
    if norm is self:
      return super().call(inputs, training=False)
    return norm(inputs, training=False)

  def normalize(
    self, inputs: tf.Tensor, domain: str
  ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalizes in training mode, and leaves the moving statistics alone.

    Returns:
      Outputs like `inputs`; the batch's mean and biased variance, float32
      [channels], which carry no gradient.
    """
    norm = self.norm_of(domain)
    gamma, beta, epsilon = norm.gamma, norm.beta, norm.epsilon
    context = tf.distribute.get_replica_context()
    replicas = 1 if context is None else context.num_replicas_in_sync
    groups = current_groups()
    if groups not in (1, replicas):
      return _in_groups(inputs, norm, context, groups)
    is_alone = groups == replicas  # One group on one device, too.
    fuses = inputs.shape.rank == 4 and norm.scale and norm.center
    if fuses and (is_alone or not self.synchronized):
      outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
        inputs, gamma, beta, epsilon=epsilon, is_training=True
      )
      count = tf.cast(tf.size(inputs) // norm.moving_mean.shape[0], tf.float32)
      variance *= tf.maximum(count - 1, 1) / count  # It comes unbiased.
    else:
      x = tf.cast(inputs, tf.float32)
      mean, variance = tf.nn.moments(x, list(range(x.shape.rank - 1)))
      if self.synchronized and not is_alone:
        mean, variance = _over_replicas(context, mean, variance)
      outputs = tf.nn.batch_normalization(
        x, mean, variance, beta, gamma, epsilon
      )
      outputs = tf.cast(outputs, inputs.dtype)
    return outputs, tf.stop_gradient(mean), tf.stop_gradient(variance)

  def scale_and_offset(self, domain: str) -> tuple[tf.Tensor, tf.Tensor]:
    """The inference-mode norm of `domain` as x * scale + offset.

    Returns:
      scale and offset, float32 [channels].
    """
    norm = self.norm_of(domain)
    scale = norm.gamma * tf.math.rsqrt(norm.moving_variance + norm.epsilon)
    return scale, norm.beta - norm.moving_mean * scale

  def move_statistics(
    self, domain: str, mean: tf.Tensor, variance: tf.Tensor
  ) -> None:
    """Moves the statistics of `domain`, as a call in training mode does.

    Within `held_moves` the move is only recorded there.

    Args:
      domain: whose statistics.
      mean: of the batch, float32 [channels].
      variance: of the batch, biased, float32 [channels].
    """
    moves = getattr(_held, 'moves', None)
    if moves is not None:
      moves.append(Move(self, domain, mean, variance))
      return
    norm = self.norm_of(domain)
    rate = 1 - norm.momentum
    variables.move(norm.moving_mean, mean, rate)
    variables.move(norm.moving_variance, variance, rate)

  def get_config(self) -> dict[str, Any]:
    # Keras 2 leaves `synchronized` out.
    return {
      **super().get_config(),
      'auxiliary_domains': list(self.auxiliary_domains),
      'synchronized': self.synchronized,
    }


def copy_main_norm(model: tf.keras.Model, domain: str) -> None:
  """Starts the norms of an auxiliary domain as copies of the main ones.

  Args:
    model: any network whose norms are `AuxBatchNormalization`.
    domain: one that its norms know.
  """
  for layer in model.submodules:
    if isinstance(layer, AuxBatchNormalization):
      auxiliary = layer.norm_of(domain)
      for name in NORM_VARIABLES:
        getattr(auxiliary, name).assign(getattr(layer, name))


def _in_groups(
  inputs: tf.Tensor,
  norm: tf.keras.layers.BatchNormalization,
  context: Optional[tf.distribute.ReplicaContext],
  groups: int,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
  """Normalizes each group of rows by its own statistics.

  Returns:
    Outputs like `inputs`; the means over the groups of their means and biased
    variances, float32 [channels], which carry no gradient.
  """
  replicas = 1 if context is None else context.num_replicas_in_sync
  if groups % replicas and replicas % groups:
    raise ValueError(
      f'group_scope: got {groups} groups on {replicas} replicas; allowed: a'
      ' multiple of the replicas, or a number that divides them'
    )
  own = max(
    1, groups // replicas
  )  # Groups of this replica, or its part of one.
  x = tf.cast(inputs, tf.float32)
  shape = tf.shape(x)
  x = tf.reshape(x, tf.concat([[own, shape[0] // own], shape[1:]], 0))
  x = tf.ensure_shape(x, [own, None, *inputs.shape[1:]])
  axes = list(range(1, x.shape.rank - 1))
  mean, variance = tf.nn.moments(x, axes, keepdims=True)
  if replicas > groups:
    mean, variance = _over_group(context, mean, variance, groups)
  outputs = tf.nn.batch_normalization(
    x, mean, variance, norm.beta, norm.gamma, norm.epsilon
  )
  outputs = tf.cast(tf.reshape(outputs, shape), inputs.dtype)
  channels = [-1, inputs.shape[-1]]
  means = [
    tf.reduce_mean(tf.reshape(value, channels), 0) for value in (mean, variance)
  ]
  return (
    tf.ensure_shape(outputs, inputs.shape),
    *(tf.stop_gradient(value) for value in means),
  )


def _over_group(
  context: tf.distribute.ReplicaContext,
  mean: tf.Tensor,
  variance: tf.Tensor,
  groups: int,
) -> tuple[tf.Tensor, tf.Tensor]:
  """Mean and biased variance of the replicas that form a group together.

  Strategies reduce over all replicas alone, so that each adds its own part in
  the place of its group.
  """
  together = context.num_replicas_in_sync // groups
  group = context.replica_id_in_sync_group // together
  own = tf.stack([mean, variance + mean**2])
  places = tf.one_hot(group, groups)
  places = tf.reshape(places, [groups, *[1] * own.shape.rank])
  sums = context.all_reduce(tf.distribute.ReduceOp.SUM, places * own[None])
  mean, square = tf.unstack(tf.gather(sums, group) / together)
  return mean, tf.maximum(square - mean**2, 0.0)


def _over_replicas(
  context: tf.distribute.ReplicaContext, mean: tf.Tensor, variance: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
  """Mean and biased variance of the global batch, of which each holds a part.

  The parts are equally large.
  """
  own = tf.stack([mean, variance + mean**2])
  mean, square = tf.unstack(
    context.all_reduce(tf.distribute.ReduceOp.MEAN, own)
  )
  return mean, tf.maximum(square - mean**2, 0.0)
