"""Opens the network of `eval.network`, whatever kind of file it is.

A run, a checkpoint and published weights become a network of this project. An
exported version, a TFLite and an ONNX file, a `.keras` file and a network of
keras.applications are called in the same way, so that all of them pass through
the same tests. What a kind of network cannot do is stated with it.
"""

from collections.abc import Mapping
import dataclasses
import hashlib
import inspect
import os
import sys
from typing import Callable, Optional

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import execution
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import paths
from efficientnet_advprop.data import sources
from efficientnet_advprop.export import exported_network
from efficientnet_advprop.models import factory
from efficientnet_advprop.weights import checkpoints
from efficientnet_advprop.weights import loading
from efficientnet_advprop.weights import readers
from efficientnet_advprop.weights import transfer

APPLICATION = 'keras:'  # Comes before the name of a keras.applications network.
_KERAS_SUFFIX = '.keras'

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BGR_MEAN = (103.939, 116.779, 123.68)
_SMALLEST = 1e-37  # Above float32's smallest normal number.
# From images in [-1, 1] to what a network takes, by `eval.pixels`.
_PIXELS: Mapping[str, Callable[[tf.Tensor], tf.Tensor]] = {
  'advprop': lambda x: x,
  'raw': lambda x: (x + 1) * 127.5,
  'unit': lambda x: (x + 1) / 2,
  'imagenet': lambda x: ((x + 1) / 2 - _MEAN) / _DEVIATION,
  'caffe': lambda x: (x[..., ::-1] + 1) * 127.5 - _BGR_MEAN,
}


@dataclasses.dataclass(frozen=True)
class Network:
  """A network that can be evaluated.

  Attributes:
    call: maps float32 images [batch, size, size, 3] in [-1, 1], `training` and
      `domain` to logits.
    title: what it is, for messages.
    image_size: height and width of its images, in pixels.
    num_classes: number of its logits.
    digest: a short hash of its weights.
    class_names: of its logits, if the files say them.
    step: of training after which it was written; None if that is unknown.
    weights: `ema` or `raw`; None if that is unknown.
    folder: where results go, below the run's folder; empty for the run itself.
    domains: whose norms it has.
    has_gradients: whether an attack can ask it for gradients.
    takes_any_size: whether images of other sizes pass through it.
    is_foreign: whether it was made elsewhere, so that a run's settings of the
      network say nothing about it.
  """

  call: Callable[..., tf.Tensor]
  title: str
  image_size: int
  num_classes: int
  digest: str
  class_names: Optional[tuple[str, ...]] = None
  step: Optional[int] = None
  weights: Optional[str] = None
  folder: str = ''
  domains: tuple[str, ...] = (config_lib.MAIN_DOMAIN,)
  has_gradients: bool = True
  takes_any_size: bool = True
  is_foreign: bool = False


def open_network(
  config: config_lib.Config, strategy: tf.distribute.Strategy, model_dir: str
) -> Network:
  """Opens `eval.network` or, without it, the newest checkpoint of a run.

  Args:
    config: of the run.
    strategy: under whose scope networks are created.
    model_dir: of the run.

  Raises:
    CheckpointError: there is no checkpoint, or it is of another network.
    ConfigError: the network cannot run with this strategy, or its pixels are
      not known.
    ExportError: a file cannot be read as a network.
  """
  path = config.eval.network or paths.evaluated_checkpoint(
    model_dir, config.eval.checkpoint
  )
  if path.startswith(APPLICATION):
    return _application(config, strategy, path)
  if path.endswith(_KERAS_SUFFIX):
    return _keras_file(config, strategy, path)
  if exported_network.is_exported(path):
    return _exported(config, strategy, path)
  tf.keras.mixed_precision.set_global_policy(config.train.evaluation_precision)
  if config.eval.network and not checkpoints.is_run(path):
    return _published(config, strategy, path)
  with strategy.scope():
    network, step = loading.restored(
      config,
      path,
      config.eval.weights,
      compiled=execution.for_evaluation(strategy, config.train.compile).layers,
    )
  return Network(
    network,
    path,
    config.model.image_size,
    config.data.num_classes,
    checkpoints.digest(network),
    _names_in_data(config),
    step,
    config.eval.weights,
    domains=(config_lib.MAIN_DOMAIN, *config.auxiliary_domains),
  )


def _published(
  config: config_lib.Config, strategy: tf.distribute.Strategy, path: str
) -> Network:
  """The run's network with published weights and the pixels they expect."""
  weights = readers.read(path)
  pixels = loading.expected_pixels(weights, config.model.architecture)
  with strategy.scope():
    network = factory.create_model(
      dataclasses.replace(config.model, normalization=pixels),
      config.data.num_classes,
      (),
      compiled=execution.for_evaluation(strategy, config.train.compile).layers,
    )
    loading.check_classes(network, weights)
    transfer.initialize(network, weights)
  return Network(
    network,
    path,
    config.model.image_size,
    config.data.num_classes,
    checkpoints.digest(network),
    _names_in_data(config),
    weights=config.eval.weights,
    folder=os.path.join('published', os.path.basename(path.rstrip('/'))),
  )


def _stem(path: str) -> str:
  return os.path.splitext(os.path.basename(path.rstrip('/')))[0]


def _names_in_data(config: config_lib.Config) -> Optional[tuple[str, ...]]:
  """The names of the classes, if the data are here and have names."""
  try:
    names = sources.label_names(config.data)
  except errors.UserError:
    return None
  if names is None or len(names) != config.data.num_classes:
    return None
  return tuple(names)


def _require_one_device(strategy: tf.distribute.Strategy, path: str) -> None:
  if not isinstance(strategy, tf.distribute.OneDeviceStrategy):
    allowed = 'a checkpoint, or --strategy=one_device for exported files'
    raise config_lib.ConfigError('eval.network', path, allowed)


def _exported(
  config: config_lib.Config, strategy: tf.distribute.Strategy, path: str
) -> Network:
  _require_one_device(strategy, path)
  network = exported_network.ExportedNetwork(path)
  version = os.path.basename(os.path.abspath(path))
  if network.is_file:
    parent = os.path.basename(os.path.dirname(os.path.abspath(path)))
    version = f'{parent}-{_stem(path)}'
  size = network.image_size or config.model.image_size
  call: Callable[..., tf.Tensor] = network
  if not network.pixels_are_known:
    call = _foreign(network, *_stated_pixels(config, path), path, size)
  return Network(
    call,
    path,
    size,
    network.num_classes,
    network.digest,
    network.class_names,
    network.facts['step'],
    network.facts['weights'],
    folder=os.path.join('exported', version),
    has_gradients=False,
    takes_any_size=network.image_size is None,
    is_foreign=not network.pixels_are_known,
  )


# --- Networks from elsewhere ------------------------------------------------


def _stated_pixels(
  config: config_lib.Config, path: str
) -> tuple[Callable[[tf.Tensor], tf.Tensor], str]:
  """`eval.pixels`, without which nothing is known of a file from elsewhere."""
  pixels = config.eval.pixels
  if pixels is None:
    allowed = f'{", ".join(_PIXELS)}: the pixels that {path} takes'
    raise config_lib.ConfigError('eval.pixels', pixels, allowed)
  return _PIXELS[pixels], pixels


def _foreign(
  network: Callable[..., tf.Tensor],
  prepare: Callable[[tf.Tensor], tf.Tensor],
  pixels: str,
  path: str,
  size: int,
) -> Callable[..., tf.Tensor]:
  """Calls a network from elsewhere as one of this project.

  Args:
    network: maps images in its own pixels to logits or probabilities.
    prepare: maps images in [-1, 1] to its own pixels.
    pixels: what these are, for the log.
    path: of the network, for the log.
    size: height and width of its images.
  """
  greys = tf.constant([-0.5, 0.0, 0.5])[:, None, None, None]
  probe = tf.broadcast_to(greys, [3, size, size, 3])
  found = network(prepare(probe), training=False)
  sums = tf.reduce_sum(tf.cast(found, tf.float32), -1)
  is_probability = bool(
    tf.reduce_all(found >= 0) and tf.reduce_all(tf.abs(sums - 1) < 1e-3)
  )
  logging.info(
    '%s: takes the pixels `%s` and returns %s',
    *(path, pixels, 'probabilities' if is_probability else 'logits'),
  )

  def call(
    images: tf.Tensor,
    training: bool = False,
    domain: str = config_lib.MAIN_DOMAIN,
  ) -> tf.Tensor:
    assert not training and domain == config_lib.MAIN_DOMAIN
    outputs = tf.cast(network(prepare(images), training=False), tf.float32)
    if not is_probability:
      return outputs
    # The softmax of these logits is the probabilities.
    return tf.math.log(tf.maximum(outputs, _SMALLEST))

  return call


def _application(
  config: config_lib.Config, strategy: tf.distribute.Strategy, path: str
) -> Network:
  """A network of keras.applications, with the pixels that its module states."""
  name = path[len(APPLICATION) :]
  builders = {
    key: value
    for key, value in vars(tf.keras.applications).items()
    if inspect.isfunction(value)
  }
  config_lib.check_choice('eval.network', name, sorted(builders))
  prepare = sys.modules[builders[name].__module__].preprocess_input
  try:
    with strategy.scope():
      model = builders[name](weights='imagenet')
  except Exception as error:  # The download has many errors of its own.
    raise errors.ExportError(
      f'{path}: cannot be loaded: {errors.first_line(error)}'
    ) from error
  return _keras(
    config,
    path,
    model,
    lambda images: prepare((images + 1) * 127.5),
    'of its own preprocess_input',
  )


def _keras_file(
  config: config_lib.Config, strategy: tf.distribute.Strategy, path: str
) -> Network:
  """A `.keras` file, whose pixels only its author knows."""
  prepare, pixels = _stated_pixels(config, path)
  try:
    with strategy.scope():
      model = tf.keras.models.load_model(path, compile=False)
  except Exception as error:  # Keras raises whatever its layers raise.
    raise errors.ExportError(
      f'{path}: cannot be loaded by Keras 2: {errors.first_line(error)}'
    ) from error
  return _keras(config, path, model, prepare, pixels)


def _keras(
  config: config_lib.Config,
  path: str,
  model: tf.keras.Model,
  prepare: Callable[[tf.Tensor], tf.Tensor],
  pixels: str,
) -> Network:
  inputs, outputs = model.input_shape, model.output_shape
  if len(inputs) != 4 or inputs[3] != 3 or len(outputs) != 2:
    raise errors.ExportError(
      f'{path}: maps {inputs} to {outputs}; allowed: images [batch, height,'
      ' width, 3] to [batch, classes]'
    )
  size = inputs[1] or config.model.image_size
  digest = hashlib.sha256()
  for variable in model.weights:
    digest.update(variable.numpy().tobytes())
  name = path.replace(':', '-') if path.startswith(APPLICATION) else _stem(path)
  return Network(
    _foreign(model, prepare, pixels, path, size),
    path,
    size,
    outputs[1],
    digest.hexdigest()[:16],
    folder=os.path.join('exported', name),
    takes_any_size=inputs[1] is None,
    is_foreign=True,
  )
