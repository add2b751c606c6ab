import threading

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.layers import normalization

_X = np.random.default_rng(0).normal(2, 3, (8, 4, 4, 3)).astype(np.float32)


def _norm(domains=('adversarial', 'augmented')):
  norm = normalization.AuxBatchNormalization(domains, momentum=0.9)
  norm.build(tf.TensorShape([None, None, None, 3]))
  return norm


def _values(norm):
  return {weight.name: weight.numpy() for weight in norm.weights}


def test_every_domain_has_its_own_four_variables():
  norm = _norm()
  assert len(norm.weights) == 12
  assert len({weight.name for weight in norm.weights}) == 12
  main = [w.name for w in norm.weights if w.name.count('/') == 0]
  plain = tf.keras.layers.BatchNormalization()
  plain.build(tf.TensorShape([None, None, None, 3]))
  assert main == [weight.name for weight in plain.weights]


def test_a_pass_moves_only_the_statistics_of_its_domain():
  norm = _norm()
  before = _values(norm)
  norm(_X, training=True, domain='augmented')
  after = _values(norm)
  moved = {name for name in after if (after[name] != before[name]).any()}
  assert moved == {'augmented/moving_mean:0', 'augmented/moving_variance:0'}


@pytest.mark.parametrize('domain', ['main', 'adversarial'])
def test_training_follows_the_closed_form(domain):
  norm = _norm()
  outputs = norm(_X, training=True, domain=domain)
  mean, variance = _X.mean((0, 1, 2)), _X.var((0, 1, 2))
  expected = (_X - mean) / np.sqrt(variance + 1e-3)
  np.testing.assert_allclose(outputs, expected, atol=1e-5)
  holder = norm.norm_of(domain)
  np.testing.assert_allclose(holder.moving_mean, 0.1 * mean, rtol=1e-5)
  np.testing.assert_allclose(
    holder.moving_variance, 0.9 + 0.1 * variance, rtol=1e-5
  )


@pytest.mark.parametrize('shape', [(8, 4, 4, 3), (8, 3)])
def test_replicas_normalize_the_global_batch(two_replicas, shape):
  """Forward, backward and statistics, against one device."""
  inputs = np.random.default_rng(1).normal(2, 3, shape).astype(np.float32)
  runs = []
  for strategy in (tf.distribute.OneDeviceStrategy('CPU:0'), two_replicas):
    size = len(inputs) // strategy.num_replicas_in_sync
    with strategy.scope():
      norm = normalization.AuxBatchNormalization(synchronized=True)
      norm.build(tf.TensorShape([None, *shape[1:]]))

    def step(x, norm=norm):
      with tf.GradientTape() as tape:
        tape.watch(x)
        y = norm(x, training=True, domain='adversarial')
        loss = tf.reduce_sum(y * tf.sin(y + tf.range(3.0)))
      return y, tape.gradient(loss, x)

    parts = strategy.experimental_distribute_values_from_function(
      lambda context, size=size: tf.constant(
        inputs[context.replica_id_in_sync_group * size :][:size]
      )
    )
    results = strategy.run(tf.function(step), args=(parts,))
    results = [
      tf.concat(strategy.experimental_local_results(values), 0)
      for values in results
    ]
    runs.append([*results, *norm.norm_of('adversarial').weights])
  for one, two in zip(*runs):
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)


def test_held_moves_are_made_later():
  held, moved = _norm(), _norm()
  with normalization.held_moves() as moves:
    held(_X, training=True, domain='augmented')
  assert _values(held).keys() == _values(_norm()).keys()
  np.testing.assert_array_equal(held.get_weights(), _norm().get_weights())
  (move,) = moves
  move.norm.move_statistics(*move[1:])
  moved(_X, training=True, domain='augmented')
  np.testing.assert_array_equal(held.get_weights(), moved.get_weights())


def test_a_norm_that_is_not_trainable_runs_in_inference_mode():
  norm = _norm()
  norm.trainable = False
  for domain in ('main', 'adversarial'):
    expected = norm(_X, training=False, domain=domain)
    outputs = norm(_X, training=True, domain=domain)
    np.testing.assert_array_equal(outputs, expected)


def test_scale_and_offset_are_the_norm_at_inference():
  norm = _norm()
  for _ in range(3):
    norm(_X, training=True, domain='adversarial')
  scale, offset = norm.scale_and_offset('adversarial')
  outputs = norm(_X, training=False, domain='adversarial')
  np.testing.assert_allclose(outputs, _X * scale + offset, atol=1e-5)


def test_an_unknown_domain_is_told_the_known_ones():
  with pytest.raises(ValueError, match='main, adversarial, augmented'):
    _norm()(_X, domain='adverserial')


def test_names_are_unique():
  with pytest.raises(ValueError, match='repeat'):
    normalization.AuxBatchNormalization(('main',))


def test_without_auxiliary_domains_it_loads_a_plain_norm():
  plain = tf.keras.layers.BatchNormalization()
  plain(_X, training=True)
  norm = _norm(())
  norm.set_weights(plain.get_weights())
  np.testing.assert_allclose(norm(_X), plain(_X), rtol=1e-5, atol=1e-5)


def test_config_round_trip():
  copy = normalization.AuxBatchNormalization.from_config(_norm().get_config())
  assert copy.auxiliary_domains == ('adversarial', 'augmented')
  assert copy.momentum == 0.9


def test_a_functional_network_takes_its_domain_from_a_scope():
  inputs = tf.keras.Input((4, 4, 3))
  norm = normalization.AuxBatchNormalization(name='norm')
  inner = tf.keras.Model(inputs, norm(inputs))
  network = tf.keras.Sequential([inner, tf.keras.layers.Flatten()])
  network(_X)
  auxiliary = norm.norm_of('adversarial')
  auxiliary.beta.assign([5.0, 6.0, 7.0])
  main = network(_X)
  with normalization.domain_scope('adversarial'):
    shifted = network(_X)
    with normalization.domain_scope('main'):
      np.testing.assert_array_equal(network(_X), main)
    np.testing.assert_array_equal(
      norm(_X, domain='main'), tf.reshape(main, _X.shape)
    )
  np.testing.assert_allclose(
    tf.reshape(shifted - main, [-1, 3])[0], [5, 6, 7], rtol=1e-5
  )
  np.testing.assert_array_equal(network(_X), main)
  with (
    normalization.domain_scope('strange'),
    pytest.raises(ValueError, match='strange'),
  ):
    network(_X)


def test_a_scope_ends_with_an_error_and_belongs_to_its_thread():
  seen = []
  with pytest.raises(KeyError), normalization.domain_scope('adversarial'):
    thread = threading.Thread(
      target=lambda: seen.append(normalization.current_domain())
    )
    thread.start()
    thread.join()
    raise KeyError
  assert seen == ['main']
  assert normalization.current_domain() == 'main'


def test_a_configuration_makes_the_same_layer():
  norm = normalization.AuxBatchNormalization(
    ('strong',), momentum=0.7, epsilon=0.1, synchronized=True
  )
  copy = normalization.AuxBatchNormalization.from_config(norm.get_config())
  assert copy.get_config() == norm.get_config()
  assert copy.synchronized and copy.auxiliary_domains == ('strong',)


def test_groups_have_their_own_statistics():
  """Each group equals a call of its own; the statistics are their means."""
  x = tf.random.stateless_normal([6, 2, 2, 3], [1, 2]) * [1.0, 2.0, 3.0] + 1
  grouped, alone = (
    normalization.AuxBatchNormalization(momentum=0.5) for _ in range(2)
  )
  alone.build(x.shape)
  parts = [alone.normalize(part, 'main') for part in tf.split(x, 3)]
  with normalization.group_scope(3):
    outputs = grouped(x, training=True)
  expected = tf.concat([part[0] for part in parts], 0)
  np.testing.assert_allclose(outputs, expected, atol=1e-5)
  mean = sum(part[1] for part in parts) / 3
  variance = sum(part[2] for part in parts) / 3
  np.testing.assert_allclose(grouped.moving_mean, mean / 2, atol=1e-6)
  np.testing.assert_allclose(
    grouped.moving_variance, (1 + variance) / 2, atol=1e-6
  )
  assert normalization.current_groups() == 1


@pytest.mark.once
@pytest.mark.parametrize('groups', [1, 2, 4])
def test_groups_do_not_depend_on_the_replicas(two_replicas, groups):
  """Outputs and gradients on two replicas, each with half of the rows."""
  x = tf.random.stateless_normal([8, 2, 2, 3], [1, 2])
  target = tf.random.stateless_normal([8, 2, 2, 3], [3, 4])

  def run(strategy, count):
    with strategy.scope():
      norm = normalization.AuxBatchNormalization(synchronized=count > 1)
      norm.build(x.shape)

    @tf.function
    def step():
      def replica():
        context = tf.distribute.get_replica_context()
        start = context.replica_id_in_sync_group * (8 // count)
        own, wanted = x[start : start + 8 // count], target[start:]
        with tf.GradientTape() as tape, normalization.group_scope(groups):
          tape.watch(own)
          outputs = norm(own, training=True)
          loss = tf.reduce_sum(outputs * wanted[: 8 // count])
          gradient = tape.gradient(loss, own)
        return outputs, gradient

      return strategy.run(replica)

    parts = [strategy.experimental_local_results(v) for v in step()]
    return [tf.concat(part, 0) for part in parts] + [norm.moving_variance]

  one = run(tf.distribute.OneDeviceStrategy('CPU:0'), 1)
  two = run(two_replicas, 2)
  for ours, theirs in zip(two, one):
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_settings_that_the_layer_cannot_keep_are_refused():
  with pytest.raises(ValueError, match='fused: got True'):
    normalization.AuxBatchNormalization(fused=True)
  layer = normalization.AuxBatchNormalization(axis=1)
  with pytest.raises(ValueError, match='axis: got 1; allowed: -1'):
    layer.build([None, 8, 8, 3])
  normalization.AuxBatchNormalization(axis=3).build([None, 8, 8, 3])
