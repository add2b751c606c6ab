"""Batch normalization that keeps apart the domains it is told of."""

from collections.abc import Sequence
from typing import Any, Optional

import tensorflow as tf

from efficientnet_advprop import config

# What a norm holds for a domain.
NORM_VARIABLES = ('gamma', 'beta', 'moving_mean', 'moving_variance')


class AuxBatchNormalization(tf.keras.layers.BatchNormalization):
  """Batch normalization with a main domain and named auxiliary ones.

  Each domain has its own gamma, beta, moving mean and moving variance (paper,
  section 4.2). The main domain's are those of the base class, so their names
  and order are a plain batch norm's; without auxiliary domains this is one.

  `call(inputs, training=None, domain='main')` normalizes `inputs`, whose last
  axis is the channel, with the variables of `domain`; in training mode only the
  moving statistics of that domain move.
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
      auxiliary_domains: names of the domains beside `'main'`.
      momentum: share of the old value when a moving statistic moves.
      epsilon: added to the variance.
      synchronized: whether batch statistics span all replicas of the strategy.
      **kwargs: passed on to tf.keras.layers.BatchNormalization.

    Raises:
      ValueError: a domain is named twice or is called `'main'`.
    """
    settings = dict(
      momentum=momentum, epsilon=epsilon, synchronized=synchronized, **kwargs
    )
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
    domain: str = config.MAIN_DOMAIN,
  ) -> tf.Tensor:
    norm = self.norm_of(domain)
    if norm is self:
      return super().call(inputs, training=training)
    return norm(inputs, training=training)

  def scale_and_offset(self, domain: str) -> tuple[tf.Tensor, tf.Tensor]:
    """The inference-mode norm of `domain` as x * scale + offset.

    Returns:
      scale and offset, float32 [channels].
    """
    norm = self.norm_of(domain)
    scale = norm.gamma * tf.math.rsqrt(norm.moving_variance + norm.epsilon)
    return scale, norm.beta - norm.moving_mean * scale

  def move_statistics(
    self, domain: str, mean: tf.Tensor, variance: tf.Tensor, count: int
  ) -> None:
    """Moves the statistics of `domain`, as a call in training mode does.

    Args:
      domain: whose statistics.
      mean: of the batch, float32 [channels].
      variance: of the batch, biased, float32 [channels].
      count: number of values behind each mean.
    """
    norm = self.norm_of(domain)
    # Keras's fused norm keeps the unbiased variance.
    variance = variance * (count / max(count - 1, 1))
    rate = 1 - norm.momentum
    norm.moving_mean.assign_sub((norm.moving_mean - mean) * rate)
    norm.moving_variance.assign_sub((norm.moving_variance - variance) * rate)

  def get_config(self) -> dict[str, Any]:
    return {**super().get_config(), 'auxiliary_domains': self.auxiliary_domains}


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
