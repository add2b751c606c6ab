"""A Keras model that trains any Keras network by AdvProp under `fit`."""

from collections.abc import Iterator
import contextlib
import dataclasses
import functools
from typing import Any, Optional

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.fit import keras_namespace
from efficientnet_advprop.fit import pixels
from efficientnet_advprop.fit import report as report_lib
from efficientnet_advprop.fit import setup as setup_lib
from efficientnet_advprop.fit import step as step_lib
from efficientnet_advprop.methods import passes as passes_lib

_PACKAGE = 'efficientnet_advprop'
_ADVERSARIAL = 'adversarial'


class _State:
  """What changes while a model is used; Keras does not look inside."""

  def __init__(self) -> None:
    self.failure: Optional[ValueError] = None  # While a step was traced.
    self.domain = config_lib.MAIN_DOMAIN  # That `evaluate` runs now.
    self.chose_jit = False
    self.is_reported = False


class AdvPropModel:
  """Trains a Keras network by AdvProp with `compile` and `fit`.

    network = keras.applications.ResNet50(weights=None, classes=10)
    model = AdvPropModel(network, AttackConfig(), pixel_range=(0, 255))
    model.compile('adam', 'sparse_categorical_crossentropy', metrics=['acc'])
    model.fit(train, validation_data=validation, epochs=5)
    network.save('shipped.keras')

  An instance is a `Model` of the network's own Keras, 2 or 3. The network's
  batch norms have a twin for each auxiliary domain. `evaluate`, `predict` and a
  call run the network itself, whose norms see clean images alone. The progress
  bar shows `loss` (the sum of the passes' losses and of the penalties), the
  loss of each pass (`clean_loss`, `adversarial_loss`) and the compiled metrics
  on clean images.

  Attributes:
    network: the user's network, which training changes in place.
  """

  network: Any
  # What Keras's base class brings.
  name: str
  optimizer: Any
  trainable_variables: Any
  test_function: Any
  compute_loss: Any
  compute_metrics: Any

  _setup: setup_lib.Setup
  _step: step_lib.Step
  _state: _State

  def __new__(cls, network: Any = None, *args: Any, **kwargs: Any) -> Any:
    model = keras_namespace.of(network).Model
    concrete = _concrete(cls, model)  # type: ignore[arg-type]
    return model.__new__(concrete, network, *args, **kwargs)

  def __init__(
    self,
    network: Any,
    attack: Optional[config_lib.AttackConfig] = None,
    method: str = 'advprop',
    pixel_range: Any = None,
    seed: int = 0,
    **kwargs: Any,
  ):
    """Gives the network's norms their twins, which start as copies.

    Args:
      network: a Keras model with one input and one output whose variables
        exist: Functional, Sequential, nested or subclassed. Weights that
        training starts from are loaded before.
      attack: how adversarial images are made; None is PGD of epsilon 1.
      method: `advprop`, `vanilla`, `adversarial`, `mixture` or `fine_grained`,
        which needs images in two views, {'image': plain, 'augmented_image':
        augmented}.
      pixel_range: (black, white) in the images that `fit` is given, each a
        number or one for each channel. Networks of this project know theirs.
      seed: of random starts and targets, which are a pure function of it and
        of the optimizer's step.
      **kwargs: passed on to keras.Model, such as `name`. `dtype` is
        mixed_float16 if the network computes in float16, so that `compile`
        makes the optimizer a LossScaleOptimizer.

    Raises:
      ValueError: the network, the method or the pixel range will not do; one
        line says why.
    """
    with _strategy_scope(network):
      if keras_namespace.computes_in_float16(network):
        kwargs.setdefault('dtype', 'mixed_float16')
      keras: Any = super()
      keras.__init__(**kwargs)
      setup = setup_lib.Setup(network, attack, method, pixel_range, seed)
      self._setup, self._state = setup, _State()
      self._step = step_lib.Step(setup)
      self.network = network
      # One flat list for each domain: Keras 3 saves no nested ones.
      for domain, twins in setup.converted.twins.items():
        setattr(self, f'{domain}_norms', twins)
    self.built = True

  # What Keras calls.

  def call(self, inputs: Any, training: Optional[bool] = None) -> Any:
    """Runs the user's network."""
    return self._setup.converted(inputs, bool(training), self._state.domain)

  @property
  def losses(self) -> list[tf.Tensor]:
    """The penalties of the user's network, as its own evaluation has them."""
    return [] if self._step.only_data else self.network.losses

  def compile(
    self, optimizer: Any = 'rmsprop', loss: Any = None, **kwargs: Any
  ) -> None:
    """Configures training, with the arguments of `keras.Model.compile`.

    Args:
      optimizer: as Keras takes it.
      loss: one loss. A cross-entropy of classes allows random targets.
      **kwargs: the others, by name. `jit_compile` is off under Keras 3 on a
        CPU unless it is given, because XLA compiles there for minutes.
    """
    setup, state = self._setup, self._state
    setup.loss = loss
    if isinstance(loss, (list, tuple)) and len(loss) == 1:
      setup.loss = loss[0]
    state.chose_jit = False
    if setup.is_3 and 'jit_compile' not in kwargs:
      state.chose_jit = not tf.config.list_physical_devices('GPU')
      if state.chose_jit:
        kwargs['jit_compile'] = False
    setup.converted.follow_trainable()
    keras: Any = super()
    keras.compile(optimizer=optimizer, loss=loss, **kwargs)

  def fit(self, *args: Any, **kwargs: Any) -> Any:
    """Trains, with the arguments of `keras.Model.fit`.

    It first says which norms have twins and what the attack is, unless
    `verbose=0` or an earlier call has said so.

    Returns:
      Keras's history.

    Raises:
      ValueError: the images leave the pixel range, the labels do not allow the
        attack, or the norms cannot be kept separate; nothing was updated by
        the batch in question.
    """
    if kwargs.get('verbose', 'auto') and not self._state.is_reported:
      print(self.report().summary())
      self._state.is_reported = True
    keras: Any = super()
    with self._plain_errors():
      return keras.fit(*args, **kwargs)

  def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
    """Makes one update; see `fit` and `keras.Model.train_on_batch`."""
    keras: Any = super()
    with self._plain_errors():
      return keras.train_on_batch(*args, **kwargs)

  def evaluate(
    self, *args: Any, domain: str = config_lib.MAIN_DOMAIN, **kwargs: Any
  ) -> Any:
    """Evaluates the network, with the arguments of `keras.Model.evaluate`.

    Args:
      *args: Keras's.
      domain: whose norms are used.
      **kwargs: Keras's.

    Returns:
      What Keras returns.

    Raises:
      ConfigError: the domain is unknown.
    """
    keras: Any = super()
    if domain == config_lib.MAIN_DOMAIN:
      return keras.evaluate(*args, **kwargs)
    known = config_lib.MAIN_DOMAIN, *self._setup.converted.domains
    config_lib.check_choice('domain', domain, known)
    compiled = self.test_function  # Keeps the domain that it was traced in.
    self.test_function = None
    self._state.domain = domain
    try:
      return keras.evaluate(*args, **kwargs)
    finally:
      self._state.domain = config_lib.MAIN_DOMAIN
      self.test_function = compiled

  def reset_metrics(self) -> None:
    """Starts all metrics again."""
    keras: Any = super()
    keras.reset_metrics()
    for tracker in self._step.trackers.values():
      tracker.reset_state()

  def train_step(self, data: Any) -> dict[str, tf.Tensor]:
    """Makes one update from the sum of the passes' losses, for `fit`."""
    try:
      return self._step(self, data)
    except ValueError as error:
      # AutoGraph is about to bury its line under those of the trace.
      self._state.failure = error
      raise

  @contextlib.contextmanager
  def _plain_errors(self) -> Iterator[None]:
    """Raises the one line of an error instead of TensorFlow's many."""
    self._state.failure = None
    try:
      yield
    except Exception as error:
      if self._state.failure is not None:
        raise self._state.failure from None
      if isinstance(error, tf.errors.InvalidArgumentError):
        line = pixels.explain(error, self._setup.pixels)
        if line:
          raise ValueError(line) from None
      raise

  # What a user calls besides.

  def attack(
    self, images: Any, labels: Any, batch_size: int = 32, seed: int = 0
  ) -> tf.Tensor:
    """Makes adversarial images from images, as training does.

    Args:
      images: [count, height, width, channels] in the pixel range.
      labels: as `fit` takes them.
      batch_size: how many are attacked at a time.
      seed: of random starts and targets.

    Returns:
      float32 images like `images`, in the pixel range.

    Raises:
      ValueError: the model is not compiled, or the labels do not allow the
        attack.
    """
    setup = self._setup
    if setup.loss is None:
      raise ValueError('attack: the model has no loss; call compile first')
    domains = setup.converted.domains
    is_known = _ADVERSARIAL in domains
    domain = _ADVERSARIAL if is_known else config_lib.MAIN_DOMAIN
    data_loss = functools.partial(self._step.data_loss, self)
    network = setup.network(data_loss, self.optimizer)

    @functools.partial(tf.function, reduce_retracing=True, autograph=False)
    def attack(batch: passes_lib.Batch) -> tf.Tensor:
      return passes_lib.adversarial_images(
        network, batch, setup.config.attack, domain
      )

    results = []
    with self._plain_errors():
      for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        image = tf.convert_to_tensor(images[rows])
        label = tf.convert_to_tensor(labels[rows])
        batch = setup.attacked_batch(image, label, seed + start)
        results.append(attack(batch))
    return tf.concat(results, 0)

  def report(self) -> report_lib.Report:
    """Returns what became of each norm; `print` shows it.

    A network whose input shape is known is traced for it once.
    """
    setup = self._setup
    spec = keras_namespace.input_spec(self.network)
    if spec is not None and setup.converted.norms:
      setup.converted.trace_once(spec)
    lines = [setup.in_words()]
    if self._state.chose_jit:
      lines.append(
        'jit_compile is off, because XLA compiles for minutes on a CPU;'
        ' compile(jit_compile=True) switches it on'
      )
    keras_step = setup.namespace.Model.train_step
    has_own = type(self.network).train_step is not keras_step
    if has_own and not setup.converted.passes_domain:
      lines.append("The network's own train_step is not used")
    return report_lib.describe(setup.converted, lines)

  # Saving.

  def get_config(self) -> dict[str, Any]:
    """Returns the network and the arguments of this class."""
    setup = self._setup
    serialize = setup.namespace.saving.serialize_keras_object
    return {
      'name': self.name,
      'network': serialize(self.network),
      'attack': dataclasses.asdict(setup.config.attack),
      'method': setup.config.train.method,
      'pixel_range': [end.tolist() for end in setup.pixels],
      'seed': setup.seed,
    }

  @classmethod
  def from_config(cls, config: dict[str, Any]) -> 'AdvPropModel':
    """Creates a model from `get_config`; its weights are loaded after."""
    config = dict(config)
    deserialize = cls._namespace().saving.deserialize_keras_object
    network = deserialize(config.pop('network'))
    attack = config_lib.AttackConfig(**config.pop('attack'))
    return cls(network, attack, **config)

  def compile_from_config(self, config: dict[str, Any]) -> None:
    """Compiles a loaded model as it was compiled when it was saved."""
    if config:
      saving = self._setup.namespace.saving
      self.compile(**saving.deserialize_keras_object(config))
      self.optimizer.build(self.trainable_variables)

  @classmethod
  def _namespace(cls) -> Any:
    loaded = keras_namespace.loaded()
    return next(module for module in loaded if issubclass(cls, module.Model))


def _strategy_scope(network: Any) -> contextlib.AbstractContextManager:
  """The scope of the strategy that holds the network's variables."""
  for weight in getattr(network, 'weights', ()):
    value = getattr(weight, 'value', weight)  # Keras 3 wraps the variable.
    strategy = getattr(value, 'distribute_strategy', None)
    if strategy is not None and strategy.num_replicas_in_sync > 1:
      return strategy.scope()
    break
  return contextlib.nullcontext()


@functools.cache
def _concrete(cls: Any, model: Any) -> Any:
  """Returns the class that is both `cls` and a model of the network's Keras."""
  if issubclass(cls, model):
    return cls
  names = {'__module__': cls.__module__, '__doc__': cls.__doc__}
  concrete: Any = type(cls.__name__, (cls, model), names)
  register = concrete._namespace().saving.register_keras_serializable
  return register(_PACKAGE, cls.__name__)(concrete)


# A saved model is loaded by the registered class of its Keras.
for _module in keras_namespace.loaded():
  _concrete(AdvPropModel, _module.Model)
