"""Tests of training: against independent loops, and with the rest of Keras."""

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.fit import advprop_model
from efficientnet_advprop.fit import setup
from efficientnet_advprop.testing import tiny_keras

IMAGES = tiny_keras.IMAGES
LABELS = tiny_keras.LABELS
PGD = tiny_keras.PGD


def test_three_steps_equal_a_loop_over_two_networks(keras):
  layers = tiny_keras.layers_of(keras)
  main = tiny_keras.functional(keras, layers)
  model = tiny_keras.compiled(keras, main)
  # The peer: a second network by hand, which shares what is no norm.
  own = tiny_keras.layers_of(keras)
  peer_layers = tiny_keras.layers_of(keras)
  peer = tiny_keras.functional(keras, peer_layers)
  twin_layers = {
    name: own[name] if 'norm' in name else layer
    for name, layer in peer_layers.items()
  }
  twin = tiny_keras.functional(keras, twin_layers)
  peer.set_weights(main.get_weights())
  twin.set_weights(main.get_weights())
  shared = peer.trainable_variables
  norms = [v for n in ('norm', 'norm2') for v in own[n].trainable_variables]

  def cross_entropy(labels, logits):
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return tf.reduce_mean(losses)

  expected = []
  for start in (0, 4, 8):
    images, labels = IMAGES[start : start + 4], LABELS[start : start + 4]
    adversarial = tf.constant(images)
    for _ in range(2):
      with tf.GradientTape() as tape:
        tape.watch(adversarial)
        loss = cross_entropy(labels, twin(adversarial, training=False))
      moved = adversarial + 4 * tf.sign(tape.gradient(loss, adversarial))
      moved = tf.clip_by_value(moved, images - 8, images + 8)
      adversarial = tf.clip_by_value(moved, 0, 255)
    with tf.GradientTape() as tape:
      clean = cross_entropy(labels, peer(images, training=True))
      attacked = cross_entropy(labels, twin(adversarial, training=True))
      kernel = tf.convert_to_tensor(peer_layers['conv2'].kernel)
      penalty = 0.01 * tf.reduce_sum(kernel**2)
      total = clean + attacked + penalty
    variables = [*shared, *norms]
    for variable, gradient in zip(variables, tape.gradient(total, variables)):
      variable.assign(variable - 0.1 * gradient)
    expected.append([total, clean, attacked])
  history = model.fit(
    IMAGES, LABELS, batch_size=4, epochs=1, shuffle=False, verbose=0
  ).history
  names = 'loss', 'clean_loss', 'adversarial_loss'
  means = np.mean(expected, 0)
  np.testing.assert_allclose([history[n][0] for n in names], means, atol=1e-6)
  tiny_keras.assert_near(
    tiny_keras.values(main.weights), tiny_keras.values(peer.weights)
  )
  of_twin = [weight for n in ('norm', 'norm2') for weight in own[n].weights]
  own_twins = [w for norm in model.adversarial_norms for w in norm.weights]
  tiny_keras.assert_near(
    tiny_keras.values(own_twins), tiny_keras.values(of_twin)
  )


def test_vanilla_equals_the_networks_own_fit(keras):
  network, peer = tiny_keras.network(keras), tiny_keras.network(keras)
  peer.set_weights(network.get_weights())
  model = tiny_keras.compiled(keras, network, method='vanilla')
  peer.compile(
    keras.optimizers.SGD(0.1),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=['accuracy'],
    **({'jit_compile': False} if hasattr(keras, 'ops') else {}),
  )
  settings = dict(batch_size=4, epochs=2, shuffle=False, verbose=0)
  settings['validation_data'] = (IMAGES, LABELS)
  settings['class_weight'] = {0: 2.0, 1: 0.5, 2: 1.0, 3: 3.0, 4: 1.0}
  ours = model.fit(IMAGES, LABELS, **settings).history
  theirs = peer.fit(IMAGES, LABELS, **settings).history
  for name, numbers in theirs.items():
    np.testing.assert_allclose(ours[name], numbers, atol=1e-6, err_msg=name)
  tiny_keras.assert_near(
    tiny_keras.values(network.weights), tiny_keras.values(peer.weights)
  )
  assert set(ours) - set(theirs) == {'clean_loss'}


def test_sample_weights_weigh_both_passes(keras):
  twice = np.r_[0:4, 0:2]
  weights = np.array([2.0, 2.0, 1.0, 1.0]) * 4 / 6
  histories = []
  for rows, weight in ((np.r_[0:4], weights), (twice, None)):
    keras.utils.set_random_seed(1)
    network = tiny_keras.network(keras)
    network.trainable = False  # Losses alone; batch statistics would differ.
    model = tiny_keras.compiled(keras, network)
    history = model.fit(
      IMAGES[rows], LABELS[rows], sample_weight=weight, batch_size=6, verbose=0
    )
    histories.append(history.history)
  for name in ('clean_loss', 'adversarial_loss'):
    np.testing.assert_allclose(histories[0][name], histories[1][name], 1e-5)


def test_uint8_images_of_unknown_size_are_trained_on(keras):
  inputs = keras.Input((None, None, 3))
  x = keras.layers.Rescaling(1 / 255)(inputs)
  x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(x))
  x = keras.layers.GlobalAveragePooling2D()(x)
  network = keras.Model(inputs, keras.layers.Dense(5)(x))
  model = tiny_keras.compiled(keras, network, PGD)
  data = tf.data.Dataset.from_tensor_slices((IMAGES.astype('uint8'), LABELS))
  data = data.batch(5)
  history = model.fit(data, epochs=2, shuffle=False, verbose=0).history
  assert np.isfinite(history['loss']).all()


def test_penalties_count_once_and_activities_in_each_pass(keras):
  def losses(method, **settings):
    keras.utils.set_random_seed(0)
    layers = tiny_keras.layers_of(keras)
    layers['conv2'] = keras.layers.Conv2D(6, 3, **settings)
    layers['norm2'].trainable = False
    model = tiny_keras.compiled(
      keras, tiny_keras.functional(keras, layers), method=method
    )
    history = model.fit(IMAGES, LABELS, batch_size=12, verbose=0).history
    passes = [v[0] for k, v in history.items() if k.endswith('_loss')]
    return history['loss'][0] - sum(passes), layers['conv2'].kernel

  l2 = keras.regularizers.L2(0.5)
  extra, _ = losses('advprop', kernel_regularizer=l2)
  once, _ = losses('vanilla', kernel_regularizer=l2)
  assert extra == pytest.approx(once, abs=1e-5) != 0
  twice, _ = losses('advprop', activity_regularizer=l2)
  once, _ = losses('vanilla', activity_regularizer=l2)
  assert twice == pytest.approx(2 * once, rel=0.2)


@pytest.mark.parametrize('method', setup.METHODS)
def test_every_method_trains_and_names_its_losses(keras, method):
  model = tiny_keras.compiled(keras, attack=PGD, method=method)
  before = tiny_keras.values(model.trainable_variables)
  images = IMAGES
  if method == 'fine_grained':
    images = {'image': IMAGES, 'augmented_image': IMAGES[::-1].copy()}
  history = model.fit(images, LABELS, batch_size=6, verbose=0).history
  names = {
    'vanilla': ['clean_loss'],
    'advprop': ['clean_loss', 'adversarial_loss'],
    'adversarial': ['adversarial_loss'],
    'mixture': ['mixture_loss'],
    'fine_grained': ['clean_loss', 'augmented_loss', 'adversarial_loss'],
  }[method]
  assert {'loss', 'accuracy', *names} == set(history)
  after = tiny_keras.values(model.trainable_variables)
  assert all(np.abs(a - b).max() > 0 for a, b in zip(after, before))
  if method == 'mixture':
    assert history['mixture_loss'][0] > 2


def test_every_method_of_the_trainer_is_taken_or_refused_with_a_reason():
  taken, refused = set(setup.METHODS), set(setup._OTHERS)
  assert taken | refused == set(config_lib.METHODS) and not taken & refused


def test_wrong_calls_end_in_one_line(keras):
  model = tiny_keras.compiled(keras)
  for call, message in (
    (lambda: model.fit(IMAGES, verbose=0), 'labels missing'),
    (
      lambda: tiny_keras.compiled(keras, method='advprob'),
      'did you mean advprop',
    ),
    (
      lambda: tiny_keras.compiled(keras, method='fast_advprop'),
      'allowed: advprop, vanilla.*groups of a batch, and only main.py',
    ),
    (
      lambda: tiny_keras.compiled(keras, method='pretrain_finetune'),
      'allowed: advprop, .*number of steps',
    ),
    (lambda: model.evaluate(IMAGES, domain='aux'), 'main, adversarial'),
    (lambda: advprop_model.AdvPropModel('net'), 'allowed: a Keras model'),
    (
      lambda: tiny_keras.compiled(keras, method='fine_grained').fit(
        IMAGES, LABELS, verbose=0
      ),
      'augmented_image',
    ),
  ):
    with pytest.raises(ValueError, match=message) as error:
      call()
    assert '\n' not in str(error.value)


def test_several_inputs_or_outputs_are_refused(keras):
  first, second = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
  x = keras.layers.BatchNormalization()(first)
  both = keras.layers.Add()([x, second])
  for network in (
    keras.Model([first, second], both),
    keras.Model(first, [x, keras.layers.ReLU()(x)]),
  ):
    with pytest.raises(ValueError, match='allowed: one input and one output'):
      tiny_keras.compiled(keras, network)


def test_the_first_lines_of_fit_say_what_has_a_twin(keras, capsys):
  model = tiny_keras.compiled(keras)
  model.fit(IMAGES, LABELS)
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == (
    'Method advprop, images in (0, 255), attack ifgsm: epsilon 8 of 255, here'
    ' 8; steps 2, target label'
  )
  text = '\n'.join(lines)
  assert '2 norms with a twin for each domain: batch_normalization' in text
  assert ('jit_compile is off' in text) == hasattr(keras, 'ops')
  model.fit(IMAGES, LABELS)
  assert 'Method' not in capsys.readouterr().out


def test_a_step_is_a_function_of_seed_and_step(keras):
  def weights(seed):
    keras.utils.set_random_seed(0)
    model = tiny_keras.compiled(keras, attack=PGD, seed=seed)
    model.fit(IMAGES, LABELS, batch_size=4, shuffle=False, verbose=0)
    return tiny_keras.values(model.weights)

  first = weights(0)
  tiny_keras.assert_near(first, weights(0), 0)
  assert any(np.abs(a - b).max() > 0 for a, b in zip(first, weights(1)))


class TestKeras:
  """The rest of Keras works with the model."""

  def test_evaluate_and_predict_are_the_users_network(self, keras):
    model = tiny_keras.compiled(keras, attack=PGD)
    model.fit(IMAGES, LABELS, verbose=0)
    network = model.network
    network.compile(metrics=['accuracy'], loss=model.loss)
    expected = network.evaluate(IMAGES, LABELS, verbose=0)
    result = model.evaluate(IMAGES, LABELS, verbose=0)
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    np.testing.assert_allclose(
      model.predict(IMAGES, verbose=0), network.predict(IMAGES, verbose=0)
    )

  def test_evaluate_knows_the_domain(self, keras):
    model = tiny_keras.compiled(keras)
    model.adversarial_norms[0].beta.assign(np.full(4, 9.0))
    main = model.evaluate(IMAGES, LABELS, verbose=0)
    other = model.evaluate(IMAGES, LABELS, verbose=0, domain='adversarial')
    assert other != main
    assert model.evaluate(IMAGES, LABELS, verbose=0) == main

  @pytest.mark.parametrize('name', ['all.weights.h5', 'checkpoint'])
  def test_weights_are_saved_and_loaded(self, keras, tmp_path, name):
    if hasattr(keras, 'ops') and name == 'checkpoint':
      pytest.skip('Keras 3 saves weights in one format')
    model = tiny_keras.compiled(keras)
    model.fit(IMAGES, LABELS, verbose=0)
    model.save_weights(str(tmp_path / name))
    other = tiny_keras.compiled(keras)
    other.load_weights(str(tmp_path / name))
    tiny_keras.assert_near(
      tiny_keras.values(other.weights), tiny_keras.values(model.weights), 0
    )

  def test_a_saved_model_goes_on_as_the_one_in_memory(self, keras, tmp_path):
    model = tiny_keras.compiled(keras, attack=PGD, seed=5)
    path = str(tmp_path / 'model.keras')
    settings = dict(batch_size=4, shuffle=False, verbose=0)
    model.fit(IMAGES, LABELS, **settings)
    model.save(path)
    loaded = keras.models.load_model(path)
    assert isinstance(loaded, advprop_model.AdvPropModel)
    config, expected = loaded.get_config(), model.get_config()
    del config['network'], expected['network']
    assert config == expected
    for each in (model, loaded):
      each.fit(IMAGES, LABELS, **settings)
    tiny_keras.assert_near(
      tiny_keras.values(loaded.weights), tiny_keras.values(model.weights)
    )

  def test_checkpoints_and_backup(self, keras, tmp_path):
    callbacks = keras.callbacks
    settings = dict(batch_size=4, shuffle=False, verbose=0)
    whole = tiny_keras.compiled(keras, attack=PGD)
    start = whole.get_weights()
    whole.fit(IMAGES, LABELS, epochs=3, **settings)

    class Stop(callbacks.Callback):
      def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
          raise KeyboardInterrupt

    best = str(tmp_path / 'best.keras')
    model = tiny_keras.compiled(keras, attack=PGD)
    model.set_weights(start)
    saved = [
      callbacks.ModelCheckpoint(best, monitor='loss', save_best_only=True),
      callbacks.BackupAndRestore(str(tmp_path / 'backup')),
      callbacks.EarlyStopping('val_loss', patience=9),
      callbacks.ReduceLROnPlateau('adversarial_loss', patience=9, mode='min'),
    ]
    settings['validation_data'] = (IMAGES, LABELS)
    with pytest.raises(KeyboardInterrupt):
      model.fit(
        IMAGES, LABELS, epochs=3, callbacks=[*saved, Stop()], **settings
      )
    resumed = tiny_keras.compiled(keras, attack=PGD)
    resumed.fit(IMAGES, LABELS, epochs=3, callbacks=saved, **settings)
    tiny_keras.assert_near(
      tiny_keras.values(resumed.weights), tiny_keras.values(whole.weights)
    )
    loaded = keras.models.load_model(best)
    assert len(loaded.adversarial_norms) == 2

  def test_steps_per_execution_and_eager_runs_change_nothing(self, keras):
    results = []
    for options in ({}, {'steps_per_execution': 3}, {'run_eagerly': True}):
      keras.utils.set_random_seed(0)
      model = advprop_model.AdvPropModel(
        tiny_keras.network(keras), PGD, pixel_range=(0, 255)
      )
      loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
      model.compile(keras.optimizers.SGD(0.1), loss, **options)
      model.fit(IMAGES, LABELS, batch_size=4, shuffle=False, verbose=0)
      results.append(tiny_keras.values(model.weights))
    tiny_keras.assert_near(results[1], results[0])
    tiny_keras.assert_near(results[2], results[0], 1e-5)

  def test_two_replicas_equal_one(self, keras, two_replicas):
    def train(scope):
      keras.utils.set_random_seed(0)
      with scope:
        layers = tiny_keras.layers_of(keras)
        for name in ('norm', 'norm2'):
          layers[name] = keras.layers.BatchNormalization(synchronized=True)
        model = tiny_keras.compiled(
          keras, tiny_keras.functional(keras, layers), PGD, pixel_range=(0, 255)
        )
      data = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(4)
      history = model.fit(data, verbose=0, epochs=2, shuffle=False).history
      return tiny_keras.values(model.weights), history

    one, expected = train(tf.distribute.get_strategy().scope())
    two, history = train(two_replicas.scope())
    tiny_keras.assert_near(two, one, 1e-5)
    for name, numbers in expected.items():
      np.testing.assert_allclose(history[name], numbers, rtol=1e-4)

  def test_mixed_precision_keeps_the_attack_in_float32(self, keras):
    policy = keras.mixed_precision
    policy.set_global_policy('mixed_bfloat16')
    try:
      network = tiny_keras.network(keras)
    finally:
      policy.set_global_policy('float32')
    model = tiny_keras.compiled(keras, network, PGD)
    history = model.fit(IMAGES, LABELS, batch_size=4, verbose=0).history
    assert np.isfinite(history['loss']).all()
    assert model.attack(IMAGES, LABELS).dtype == tf.float32
    assert all(weight.dtype == 'float32' for weight in model.weights)

  def test_train_on_batch(self, keras):
    model = tiny_keras.compiled(keras)
    logs = model.train_on_batch(IMAGES, LABELS, return_dict=True)
    assert {'loss', 'clean_loss', 'adversarial_loss'} <= set(logs)

  def test_frozen_norms_follow_a_new_compile(self, keras):
    model = tiny_keras.compiled(keras)
    count = len(model.trainable_variables)
    model.network.layers[3].trainable = False
    model.compile('sgd', 'mse')
    assert len(model.trainable_variables) == count - 4
    model.network.layers[3].trainable = True
    model.compile('sgd', 'mse')
    assert len(model.trainable_variables) == count
