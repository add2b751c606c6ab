"""Updates against independent loops, and what a step counts and weighs."""

import numpy as np
import pytest
import tensorflow as tf

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


def test_a_step_is_a_function_of_seed_and_step(keras):
  def weights(seed):
    keras.utils.set_random_seed(0)
    model = tiny_keras.compiled(keras, attack=PGD, seed=seed)
    model.fit(IMAGES, LABELS, batch_size=4, shuffle=False, verbose=0)
    return tiny_keras.values(model.weights)

  first = weights(0)
  tiny_keras.assert_near(first, weights(0), 0)
  assert any(np.abs(a - b).max() > 0 for a, b in zip(first, weights(1)))


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
