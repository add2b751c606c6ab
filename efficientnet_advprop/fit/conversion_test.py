"""Tests of conversion: each way in which a twin could go wrong."""

import threading
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.fit import conversion
from efficientnet_advprop.fit import report

DOMAINS = ('adversarial',)
IMAGES = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype('float32')


def is_3(keras):
  return hasattr(keras, 'ops')


def small(keras, name='small', **norm):
  """Convolution, norm and classifier."""
  inputs = keras.Input((8, 8, 3))
  x = keras.layers.Conv2D(4, 3, name='conv')(inputs)
  x = keras.layers.BatchNormalization(name='norm', **norm)(x)
  x = keras.layers.GlobalAveragePooling2D()(x)
  return keras.Model(inputs, keras.layers.Dense(5, name='top')(x), name=name)


def statistics(layer):
  return [layer.moving_mean.numpy(), layer.moving_variance.numpy()]


def paths(network):
  return [norm.path for norm in conversion.find_norms(network)]


def test_a_nested_network_is_searched_to_any_depth(keras):
  inputs = keras.Input((8, 8, 3))
  inner = keras.Model(inputs, small(keras)(inputs), name='middle')
  network = keras.Sequential([keras.Input((8, 8, 3)), inner], name='outer')
  assert paths(network) == ['middle/small/norm']
  converted = conversion.Conversion(network, DOMAINS)
  twin = converted.twins['adversarial'][0]
  before = statistics(twin)
  converted(IMAGES, True, 'adversarial')
  assert np.abs(statistics(twin)[0] - before[0]).max() > 0


def test_layers_in_wrappers_lists_and_other_layers_are_found(keras):
  class Block(keras.layers.Layer):
    def __init__(self):
      super().__init__(name='block')
      self.norms = [keras.layers.BatchNormalization(name='in_a_list')]

    def call(self, inputs):
      return self.norms[0](inputs)

  inputs = keras.Input((8, 8, 3))
  x = Block()(inputs)
  norm = keras.layers.BatchNormalization(name='inside')
  x = keras.layers.TimeDistributed(norm, name='wrapper')(x)
  network = keras.Model(inputs, keras.layers.Flatten()(x))
  assert paths(network) == ['block/in_a_list', 'wrapper/inside']
  converted = conversion.Conversion(network, DOMAINS)
  converted(IMAGES, True, 'adversarial')
  converted(IMAGES, True)
  converted.check()


def test_the_twin_answers_as_the_network_and_shares_all_but_the_norms(keras):
  network = small(keras)
  network(IMAGES, training=True)  # Statistics other than those of the start.
  expected = network(IMAGES).numpy()
  converted = conversion.Conversion(network, DOMAINS)
  np.testing.assert_array_equal(converted(IMAGES), expected)
  np.testing.assert_array_equal(
    converted(IMAGES, domain='adversarial'), expected
  )
  twin = converted.twins['adversarial'][0]
  twin.gamma.assign(twin.gamma * 3)
  np.testing.assert_array_equal(network(IMAGES), expected)
  changed = converted(IMAGES, domain='adversarial').numpy()
  assert np.abs(changed - expected).max() > 0.01
  network.get_layer('top').bias.assign(np.ones(5))
  np.testing.assert_allclose(
    converted(IMAGES, domain='adversarial'), changed + 1, atol=1e-6
  )


def test_each_pass_moves_the_statistics_of_its_own_domain_alone(keras):
  network = small(keras)
  converted = conversion.Conversion(network, DOMAINS)
  main, twin = network.get_layer('norm'), converted.twins['adversarial'][0]
  for moves, stays, domain in (
    (main, twin, 'main'),
    (twin, main, 'adversarial'),
  ):
    before = statistics(stays), statistics(moves)
    converted(IMAGES, True, domain)
    np.testing.assert_array_equal(statistics(stays), before[0])
    assert np.abs(statistics(moves)[0] - before[1][0]).max() > 0
  before = statistics(main), statistics(twin)
  converted(IMAGES, False, 'adversarial')
  np.testing.assert_array_equal((statistics(main), statistics(twin)), before)


def test_the_network_stays_what_it_was(keras, tmp_path):
  network = small(keras)
  weights = list(network.weights)
  config = network.get_config()
  output = network.get_layer('norm').output
  conversion.Conversion(network, DOMAINS)
  assert all(a is b for a, b in zip(network.weights, weights))
  assert len(network.weights) == len(weights)
  assert network.get_config() == config
  assert network.get_layer('norm').output is output
  path = tmp_path / 'network.keras'
  network.save(path)
  with zipfile.ZipFile(path) as file:
    assert b'efficientnet_advprop' not in file.read('config.json')
  loaded = keras.models.load_model(path)
  np.testing.assert_array_equal(loaded(IMAGES), network(IMAGES))


def test_an_export_holds_the_main_norms_alone(keras, tmp_path):
  network = small(keras)
  expected = network(IMAGES).numpy()
  conversion.Conversion(network, DOMAINS)
  network.export(str(tmp_path))
  loaded = tf.saved_model.load(str(tmp_path))
  np.testing.assert_allclose(loaded.serve(IMAGES), expected, atol=1e-6)
  assert len(loaded.variables) == len(network.weights)


def test_a_norm_used_twice_has_one_twin(keras):
  inputs = keras.Input((8, 8, 3))
  norm = keras.layers.BatchNormalization(name='shared')
  x = norm(keras.layers.Activation('relu')(norm(inputs)))
  network = keras.Model(inputs, keras.layers.Flatten()(x))
  converted = conversion.Conversion(network, DOMAINS)
  assert len(converted.all_twins()) == 1
  converted(IMAGES, True)
  assert len(converted.uses(converted.norms[0])) == 2


def test_norms_of_one_name_have_variables_of_several_names(keras):
  inputs = keras.Input((8, 8, 3))
  both = [small(keras, name)(inputs) for name in ('left', 'right')]
  network = keras.Model(inputs, keras.layers.Add()(both))
  converted = conversion.Conversion(network, DOMAINS)
  weights = [w for twin in converted.all_twins() for w in twin.weights]
  names = {getattr(weight, 'path', weight.name) for weight in weights}
  assert len(names) == len(weights) == 8


def test_the_settings_of_a_norm_are_kept(keras):
  network = small(keras, axis=1, momentum=0.5, epsilon=0.2, center=False)
  twin = conversion.Conversion(network, DOMAINS).twins['adversarial'][0]
  assert (twin.momentum, twin.epsilon, twin.center) == (0.5, 0.2, False)
  assert twin.gamma.shape == (6,)


def test_a_synchronized_norm_has_a_synchronized_twin(keras):
  network = small(keras, synchronized=True)
  twin = conversion.Conversion(network, DOMAINS).twins['adversarial'][0]
  assert twin.synchronized
  if not is_3(keras):
    norm = keras.layers.experimental.SyncBatchNormalization()
    network = keras.Sequential([keras.Input((8, 8, 3)), norm])
    twin = conversion.Conversion(network, DOMAINS).twins['adversarial'][0]
    assert type(twin) is type(norm) and twin.synchronized


def test_a_norm_of_the_users_own_class_is_copied(keras):
  class Doubled(keras.layers.BatchNormalization):
    def call(self, inputs, training=None):
      if tf.reduce_max(inputs) > 0:  # AutoGraph turns it into tf.cond.
        inputs = 2 * inputs
      return super().call(inputs, training=training)

  network = keras.Sequential([keras.Input((8, 8, 3)), Doubled(name='own')])
  converted = conversion.Conversion(network, DOMAINS)
  assert type(converted.twins['adversarial'][0]) is Doubled
  if not is_3(keras):  # Keras 3 traces calls without AutoGraph.
    run = tf.function(lambda x: converted(x, domain='adversarial'))
    np.testing.assert_allclose(run(IMAGES), network(IMAGES), atol=1e-6)


def test_frozen_norms_have_frozen_twins_and_the_report_says_so(keras):
  class Inference(keras.layers.Layer):
    """Calls a network in inference mode, as fine-tuning often does."""

    def __init__(self, base):
      super().__init__()
      self.base = base

    def call(self, inputs):
      return self.base(inputs, training=False)

  base = small(keras, 'base')
  inputs = keras.Input((8, 8, 3))
  network = keras.Model(inputs, Inference(base)(inputs))
  converted = conversion.Conversion(network, DOMAINS)

  def status():
    return report.describe(converted, []).norms[0].status

  twin = converted.twins['adversarial'][0]
  before = statistics(twin)
  converted(IMAGES, True)
  converted(IMAGES, True, 'adversarial')
  np.testing.assert_array_equal(statistics(twin), before)
  assert 'training=False' in status()
  base.trainable = False
  converted.follow_trainable()
  assert not twin.trainable
  assert 'trainable=False' in status()
  base.trainable = True
  converted.follow_trainable()
  assert len(twin.trainable_weights) == 2


def test_a_mode_recorded_in_the_graph_holds_for_the_twin_too(keras):
  # Keras 2 keeps it; Keras 3 lets the mode of the outer call override it.
  inputs = keras.Input((8, 8, 3))
  network = keras.Model(inputs, small(keras)(inputs, training=False))
  converted = conversion.Conversion(network, DOMAINS)
  main, twin = converted.norms[0].layer, converted.all_twins()[0]
  network(IMAGES, training=True)
  expected = statistics(main)
  converted(IMAGES, True, 'adversarial')
  np.testing.assert_array_equal(statistics(twin), expected)


def test_a_network_without_batch_norms_is_refused(keras):
  layers = [keras.layers.Conv2D(4, 3), keras.layers.LayerNormalization()]
  network = keras.Sequential([keras.Input((8, 8, 3)), *layers])
  with pytest.raises(conversion.ConversionError, match='has no batch norm'):
    conversion.Conversion(network, DOMAINS)
  conversion.Conversion(network, ())  # Methods without auxiliary norms may.


def test_a_network_without_variables_is_refused(keras):
  network = keras.Sequential([keras.layers.BatchNormalization()])
  with pytest.raises(conversion.ConversionError, match='build it, first'):
    conversion.Conversion(network, DOMAINS)


def test_statistics_outside_of_layers_are_refused(keras):
  class Hidden(keras.layers.Layer):
    def build(self, input_shape):
      self.means = self.add_weight(
        shape=(3,), name='moving_mean', trainable=False
      )
      self.built = True

    def call(self, inputs):
      return inputs - tf.convert_to_tensor(self.means)

  inputs = keras.Input((8, 8, 3))
  x = keras.layers.BatchNormalization()(Hidden(name='hidden')(inputs))
  network = keras.Model(inputs, x)
  with pytest.raises(conversion.ConversionError, match='hidden/moving_mean'):
    conversion.Conversion(network, DOMAINS)


def test_a_norm_that_cannot_be_copied_is_refused(keras):
  class Stubborn(keras.layers.BatchNormalization):
    def __init__(self, share):
      super().__init__(name='stubborn')
      self.share = share

    def get_config(self):
      return {'name': self.name}

  network = keras.Sequential([keras.Input((8, 8, 3)), Stubborn(0.5)])
  with pytest.raises(conversion.ConversionError, match=r'stubborn \(Stubborn'):
    conversion.Conversion(network, DOMAINS)


class TestSubclassed:
  """Networks whose `call` is Python follow the scope, or are refused."""

  @staticmethod
  def network(keras, wrap=lambda function: function, **call):
    class Network(keras.Model):
      def __init__(self):
        super().__init__(name='own')
        self.norm = keras.layers.BatchNormalization(name='norm')
        self.dense = keras.layers.Dense(5)
        self.wrapped = wrap(self.normalized)

      def normalized(self, x, training):
        return self.norm(x, **{'training': training, **call})

      def call(self, x, training=None):
        return self.dense(self.wrapped(x, training))

    network = Network()
    network(IMAGES)
    return network

  def test_it_follows_the_domain(self, keras):
    network = self.network(keras)
    converted = conversion.Conversion(network, DOMAINS)
    main, before = statistics(network.norm), statistics(network.norm)
    converted(IMAGES, True, 'adversarial')
    np.testing.assert_array_equal(main, before)
    twin = converted.twins['adversarial'][0]
    assert np.abs(statistics(twin)[0] - before[0]).max() > 0
    converted(IMAGES, True)
    converted.check()

  def test_a_function_that_keeps_its_first_domain_is_refused(self, keras):
    network = self.network(keras, tf.function)
    converted = conversion.Conversion(network, DOMAINS)
    images = tf.constant(IMAGES)
    converted(images, True)
    converted(images, True, 'adversarial')
    with pytest.raises(conversion.ConversionError, match=r'tf\.function'):
      converted.check()

  def test_recomputation_in_the_backward_pass_is_refused(self, keras):
    if is_3(keras):
      pytest.skip('tf.recompute_grad does not take Keras 3 layers')

    def recomputed(function):
      return lambda x, training: tf.recompute_grad(
        lambda x: function(x, training)
      )(x)

    network = self.network(keras, recomputed)
    converted = conversion.Conversion(network, DOMAINS)
    images = tf.constant(IMAGES)
    with tf.GradientTape() as tape:
      tape.watch(images)
      outputs = converted(images, True, 'adversarial')
    with (
      conversion.backward(),
      pytest.raises(conversion.ConversionError, match='switch recomputation'),
    ):
      tape.gradient(outputs, images)

  def test_norms_that_always_train_are_refused(self, keras):
    network = self.network(keras, training=True)
    converted = conversion.Conversion(network, DOMAINS)
    converted(IMAGES, False, 'adversarial')
    with pytest.raises(conversion.ConversionError, match='training=True'):
      converted.check()


def test_two_conversions_of_a_network_do_not_meet(keras):
  network = small(keras)
  first, second = (conversion.Conversion(network, DOMAINS) for _ in range(2))
  before = statistics(first.all_twins()[0])
  second(IMAGES, True, 'adversarial')
  np.testing.assert_array_equal(statistics(first.all_twins()[0]), before)
  assert np.abs(statistics(second.all_twins()[0])[0] - before[0]).max() > 0


def test_a_scope_belongs_to_its_thread(keras):
  network = small(keras)
  converted = conversion.Conversion(network, DOMAINS)
  twin = converted.twins['adversarial'][0]
  before = statistics(twin)
  with converted.scope('adversarial', True):
    thread = threading.Thread(target=lambda: network(IMAGES, training=True))
    thread.start()
    thread.join()
  np.testing.assert_array_equal(statistics(twin), before)
  main = statistics(network.get_layer('norm'))
  assert np.abs(main[0] - before[0]).max() > 0


def test_an_unknown_domain_is_refused(keras):
  converted = conversion.Conversion(small(keras), DOMAINS)
  with pytest.raises(ValueError, match='allowed: main, adversarial'):
    converted(IMAGES, domain='augmented')
