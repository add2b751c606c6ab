"""Tests of the losses that attacks climb, by kind of label and output."""

import numpy as np
import pytest

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.fit import advprop_model
from efficientnet_advprop.testing import tiny_keras

IMAGES = tiny_keras.IMAGES
LABELS = tiny_keras.LABELS


def test_labels_and_outputs_of_every_kind_give_the_same_attack(keras):
  losses = keras.losses
  one_hot = np.eye(5, dtype='float32')[LABELS]
  network, softmax = (
    tiny_keras.network(keras),
    tiny_keras.network(keras, activation='softmax'),
  )
  softmax.set_weights(network.get_weights())
  results = []
  for outputs, loss, labels in (
    (network, losses.SparseCategoricalCrossentropy(True), LABELS),
    (network, losses.SparseCategoricalCrossentropy(True), LABELS[:, None]),
    (network, losses.CategoricalCrossentropy(True), one_hot),
    (
      network,
      losses.CategoricalCrossentropy(True, label_smoothing=0.1),
      0.9 * one_hot + 0.02,
    ),
    (softmax, 'sparse_categorical_crossentropy', LABELS),
    (softmax, losses.CategoricalCrossentropy(), one_hot),
  ):
    for target in ('random', 'label'):
      attack = config_lib.AttackConfig(epsilon=4, target=target)
      model = advprop_model.AdvPropModel(outputs, attack, pixel_range=(0, 255))
      model.compile('sgd', loss)
      results.append((target, tiny_keras.attacked(model, labels)))
  for target in ('random', 'label'):
    first, *others = (images for t, images in results if t == target)
    for other in others:
      # A gradient near zero may change its sign with the last bit.
      assert np.mean(first != other) < 0.01
  assert np.mean(results[0][1] != results[1][1]) > 0.3


def test_saturated_probabilities_are_attacked_as_well(keras):
  network = tiny_keras.network(keras, activation='softmax')
  top = network.layers[-1]
  top.bias.assign([0.0, 0.0, 0.0, 0.0, 60.0])
  model = advprop_model.AdvPropModel(
    network,
    config_lib.AttackConfig(name='ifgsm', epsilon=4, target='random'),
    pixel_range=(0, 255),
  )
  model.compile('sgd', 'sparse_categorical_crossentropy')
  labels = np.full(12, 4)
  assert np.mean(tiny_keras.attacked(model, labels) != IMAGES) > 0.9


def test_outputs_without_classes_take_the_compiled_loss(keras):
  inputs = keras.Input((8, 8, 3))
  x = keras.layers.Rescaling(1 / 128, -1)(inputs)
  x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(x))
  pixelwise = keras.Model(inputs, keras.layers.Conv2D(5, 1)(x))
  pooled = keras.layers.GlobalAveragePooling2D()(x)
  top = keras.layers.Dense(3, activation='sigmoid')
  multi = keras.Model(inputs, top(pooled))
  per_pixel = np.random.default_rng(0).integers(0, 5, (12, 6, 6))
  several = np.random.default_rng(0).integers(0, 2, (12, 3)).astype('float32')
  losses = keras.losses
  for network, loss, labels in (
    (pixelwise, losses.SparseCategoricalCrossentropy(True), per_pixel),
    (multi, 'binary_crossentropy', several),
  ):
    random = config_lib.AttackConfig(target='random')
    model = advprop_model.AdvPropModel(network, random, pixel_range=(0, 255))
    model.compile('sgd', loss)
    with pytest.raises(ValueError, match=r"AttackConfig\(target='label'\)"):
      model.fit(IMAGES, labels, verbose=0)
    label = config_lib.AttackConfig(
      name='ifgsm', epsilon=8, step_size=2, num_steps=4, target='label'
    )
    model = advprop_model.AdvPropModel(network, label, pixel_range=(0, 255))
    model.compile('sgd', loss)
    images = tiny_keras.attacked(model, labels)
    before = model.evaluate(IMAGES, labels, verbose=0)
    assert model.evaluate(images, labels, verbose=0) > before
    history = model.fit(IMAGES, labels, verbose=0, batch_size=6).history
    assert history['adversarial_loss'][0] > history['clean_loss'][0]
