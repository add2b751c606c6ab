"""Tests of the model with the rest of Keras, and of wrong calls."""

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.fit import advprop_model
from efficientnet_advprop.testing import tiny_keras

IMAGES = tiny_keras.IMAGES
LABELS = tiny_keras.LABELS
PGD = tiny_keras.PGD


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
