"""What an AdvPropModel holds besides layers, and what a step takes from it."""

from collections.abc import Callable, Sequence
from typing import Any, Optional

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.fit import conversion
from efficientnet_advprop.fit import keras_namespace
from efficientnet_advprop.fit import pixels as pixels_lib
from efficientnet_advprop.fit import targets
from efficientnet_advprop.methods import paper
from efficientnet_advprop.methods import passes

# The training methods that need nothing but a batch and the network.
METHODS = ('advprop', 'vanilla', 'adversarial', 'mixture', 'fine_grained')
# Those of the trainer that need more, and what that is.
_OTHERS = {
  'fast_advprop': 'norms with statistics over groups of a batch',
  'pretrain_finetune': 'the number of steps of the whole training',
}

# Maps labels, outputs and sample weights to the compiled loss.
DataLoss = Callable[[Any, Any, Any], tf.Tensor]


class Setup:
  """The settings of a model, its network and the twins of its norms.

  It is no Keras object, so that Keras neither tracks nor saves what it holds.

  Attributes:
    namespace: the Keras module of the network.
    is_3: whether that is Keras 3.
    config: attack and method, as the trainer's configuration has them.
    pixels: values of black and white.
    seed: of random starts and targets.
    converted: the network with its twins.
    loss: as given to `compile`; None before.
  """

  def __init__(
    self,
    network: Any,
    attack: Optional[config_lib.AttackConfig],
    method: str,
    pixel_range: Any,
    seed: int,
  ):
    """Checks the arguments, which are those of `AdvPropModel`."""
    if method in _OTHERS:
      raise config_lib.ConfigError(
        'method',
        method,
        f'{", ".join(METHODS)}; {method} needs {_OTHERS[method]}, and only'
        ' main.py trains by it',
      )
    config_lib.check_choice('method', method, METHODS)
    self.namespace = keras_namespace.of(network)
    self.is_3 = keras_namespace.is_keras_3(self.namespace)
    if pixel_range is None and conversion.takes_domain(network):
      pixel_range = (-1, 1)
    self.pixels = pixels_lib.parse(pixel_range)
    self.config = config_lib.Config(
      attack=attack or config_lib.AttackConfig(),
      train=config_lib.TrainConfig(method=method),
    )
    self.seed = seed
    self.loss: Any = None
    keras_namespace.input_spec(network)  # Refuses several inputs.
    self.converted = conversion.Conversion(
      network, self.config.auxiliary_domains
    )

  def seeds(self, images: tf.Tensor, step: Any) -> tf.Tensor:
    """Returns a seed for each image of this replica: int32 [batch, 2].

    Each image of the global batch has its own, which is a pure function of the
    seed, the step and its place.
    """
    strategy = tf.distribute.get_strategy()
    context = tf.distribute.get_replica_context()
    replica = context.replica_id_in_sync_group if context else 0
    size = images.shape[0] or tf.shape(images)[0]
    count = size * strategy.num_replicas_in_sync
    key = tf.stack([tf.constant(self.seed, tf.int32), tf.cast(step, tf.int32)])
    seeds = tf.random.stateless_uniform(
      [count, 2], key, None, None, tf.int32, alg='philox'
    )
    return seeds[replica * size : (replica + 1) * size]

  def batch(self, images: Any, labels: Any, step: Any) -> passes.Batch:
    """Returns a batch as the training methods take it.

    Args:
      images: as `fit` is given them: a tensor, or the two views of
        `fine_grained`.
      labels: as `fit` is given them.
      step: that the batch belongs to.

    Raises:
      ConfigError: the images or the labels do not suit the method.
    """
    views = self._views(images)
    views = {
      name: pixels_lib.checked(view, self.pixels)
      for name, view in views.items()
    }
    read = targets.read(labels, self.loss)
    if self.config.train.method != 'vanilla':
      targets.check_target(self.loss, self.config.attack.target, read)
    return {**views, **read, 'seed': self.seeds(views['image'], step)}

  def attacked_batch(self, images: Any, labels: Any, step: Any) -> passes.Batch:
    """Returns a batch of single images to attack; see `batch`.

    Raises:
      ConfigError: the labels do not allow the attack's target.
    """
    read = targets.read(labels, self.loss)
    targets.check_target(self.loss, self.config.attack.target, read)
    image = pixels_lib.checked(images, self.pixels)
    return {'image': image, **read, 'seed': self.seeds(image, step)}

  def in_words(self) -> str:
    """Returns a line on the method, the attack and the pixel range."""
    attack, method = self.config.attack, self.config.train.method
    line = f'Method {method}, images in {self.pixels}'
    if method == 'vanilla':
      return line
    level = (self.pixels.high - self.pixels.low) / 255
    size = pixels_lib.in_words(attack.epsilon * level)
    return (
      f'{line}, attack {attack.name}: epsilon {attack.epsilon:g} of 255, here'
      f' {size}; steps {attack.num_steps}, target {attack.target}'
    )

  def _views(self, images: Any) -> dict[str, Any]:
    method = self.config.train.method
    names = ['image']
    if config_lib.METHODS[method].two_views:
      names.append('augmented_image')
    elif tf.is_tensor(images):
      return {'image': images}
    if isinstance(images, dict) and sorted(images) == sorted(names):
      return images
    allowed = 'one tensor'
    if len(names) > 1:
      allowed = 'a dictionary of image and augmented_image'
    found = type(images).__name__
    if isinstance(images, dict):
      found = f'a dictionary of {", ".join(sorted(images))}'
    raise config_lib.ConfigError(
      'fit', found, f'images as {allowed} for the method {method}'
    )

  def network(self, data_loss: DataLoss, optimizer: Any) -> 'Network':
    """Returns the network as the training methods call it."""
    return Network(self, data_loss, optimizer)

  def passes(
    self, batch: passes.Batch, step: Any, data_loss: DataLoss, optimizer: Any
  ) -> Sequence[passes.Pass]:
    """Returns the passes of the method over a batch; it attacks, if need be."""
    method = paper.METHODS[self.config.train.method]
    network = self.network(data_loss, optimizer)
    return method(network, batch, self.config, step)


class Network:
  """A converted network, with what its attack needs to know."""

  def __init__(self, setup: Setup, data_loss: DataLoss, optimizer: Any):
    self._converted = setup.converted
    scale = keras_namespace.loss_scale(optimizer, self._converted.network)
    self._is_scaled = scale is not None

    def unweighted(labels: Any, outputs: Any) -> tf.Tensor:
      return data_loss(labels, outputs, None)

    self.attack_options = {
      'pixel_range': setup.pixels,
      'loss_fn': targets.attack_loss(setup.loss, unweighted, scale),
    }

  def __call__(
    self, images: tf.Tensor, training: bool, domain: str, seed: tf.Tensor
  ) -> Any:
    if self._is_scaled:
      images = _with_gradients_that_are_numbers(images)
    return self._converted(images, training, domain, seed)


@tf.custom_gradient
def _with_gradients_that_are_numbers(images: tf.Tensor) -> Any:
  """Returns images; what overflows to NaN in float16 attacks no pixel.

  An image of NaN would break the statistics of norms, which Keras keeps also of
  a step whose weights' gradients overflow.
  """

  def gradient(upstream: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.math.is_nan(upstream), 0.0, upstream)

  return tf.identity(images), gradient
