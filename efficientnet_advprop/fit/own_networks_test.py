"""This project's networks under AdvPropModel, against its own trainer."""

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.fit import advprop_model
from efficientnet_advprop.layers import normalization
from efficientnet_advprop.models import factory
from efficientnet_advprop.testing import tiny_runs
from efficientnet_advprop.training import step as step_lib

pytestmark = pytest.mark.skipif(
  hasattr(tf.keras, 'ops'), reason='the networks are of Keras 2'
)
IMAGES = np.random.default_rng(0).uniform(-1, 1, (12, 16, 16, 3))
IMAGES = IMAGES.astype('float32')
LABELS = np.random.default_rng(1).integers(0, 7, 12).astype('int32')


def network(domains=('adversarial',), model=tiny_runs.RESNET):
  tf.keras.utils.set_random_seed(0)
  return factory.create_model(config_lib.ModelConfig(**model), 7, domains)


def compiled(model):
  loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
  model.compile(tf.keras.optimizers.SGD(0.01, momentum=0.9), loss)
  return model


@pytest.mark.parametrize(
  'method, target',
  [
    ('advprop', 'random'),
    ('mixture', 'label'),
    # The first is the cheaper one of the same code.
    pytest.param('fine_grained', 'random', marks=pytest.mark.slow),
  ],
)
def test_three_steps_equal_the_trainers(method, target):
  attack = config_lib.AttackConfig(epsilon=4, num_steps=2, target=target)
  config = config_lib.from_dict(
    {
      'attack': {'epsilon': 4, 'num_steps': 2, 'target': target},
      'data': {'num_classes': 7, 'num_train_images': 12},
      'train': {
        'method': method,
        'batch_size': 4,
        'weight_decay': 0,
        'label_smoothing': 0,
      },
    }
  )
  domains = config.auxiliary_domains
  ours, peer = network(domains=domains), network(domains=domains)
  model = compiled(advprop_model.AdvPropModel(ours, attack, method, seed=3))
  optimizer = tf.keras.optimizers.SGD(0.01, momentum=0.9)
  average, sums = network(domains=domains), []

  @tf.function  # As the trainer runs it.
  def peer_step(batch):
    return step_lib.train_step(peer, average, optimizer, batch, config)

  for step, start in enumerate((0, 4, 8)):
    rows = slice(start, start + 4)
    batch = {
      'image': tf.constant(IMAGES[rows]),
      'augmented_image': tf.constant(IMAGES[rows][::-1]),
      'label': tf.constant(LABELS[rows]),
      'seed': model._setup.seeds(tf.constant(IMAGES[rows]), step),
    }
    sums.append(peer_step(batch))
    names = ['image', *['augmented_image'] * (method == 'fine_grained')]
    images = {name: batch[name] for name in names}
    images = images if len(images) > 1 else images['image']
    logs = model.train_on_batch(
      images, LABELS[rows], reset_metrics=True, return_dict=True
    )
    np.testing.assert_allclose(list(logs.values()), sums[-1], atol=1e-6)
  for mine, its in zip(ours.variables, peer.variables):
    np.testing.assert_allclose(
      mine, its, rtol=1e-6, atol=1e-6, err_msg=its.name
    )


def test_the_networks_own_domains_and_range_are_used():
  ours = network(model=tiny_runs.EFFICIENTNET)
  model = compiled(advprop_model.AdvPropModel(ours))
  assert len(model.weights) == len(ours.weights)
  assert model.evaluate(IMAGES, LABELS, verbose=0) == pytest.approx(
    model.evaluate(IMAGES, LABELS, verbose=0, domain='adversarial')
  )
  text = str(model.report())
  assert 'images in (-1, 1)' in text
  assert 'AuxBatchNormalization: with domains of its own' in text
  assert 'stem/norm' in text
  history = model.fit(IMAGES, LABELS, verbose=0).history
  assert set(history) == {'loss', 'clean_loss', 'adversarial_loss'}
  with pytest.raises(ValueError, match=r'auxiliary_domains=\(.adversarial'):
    advprop_model.AdvPropModel(network(domains=()))
  with pytest.raises(ValueError, match='knows the domains main, strong, not'):
    advprop_model.AdvPropModel(network(domains=('strong',)))


def test_a_functional_network_of_our_norms_is_trained():
  inputs = tf.keras.Input((16, 16, 3))
  norm = normalization.AuxBatchNormalization()
  x = norm(tf.keras.layers.Conv2D(4, 3)(inputs))
  x = tf.keras.layers.BatchNormalization()(x)  # A plain one besides.
  x = tf.keras.layers.GlobalAveragePooling2D()(x)
  mixed = tf.keras.Model(inputs, tf.keras.layers.Dense(7)(x))
  model = compiled(advprop_model.AdvPropModel(mixed, pixel_range=(-1, 1)))
  assert len(model.adversarial_norms) == 1
  before = [weight.numpy() for weight in model.weights]
  model.fit(IMAGES, LABELS, verbose=0)
  for weight, old in zip(model.weights, before):
    assert np.abs(weight - old).max() > 0, weight.name


def test_a_model_of_our_network_is_saved_whole(tmp_path):
  model = compiled(advprop_model.AdvPropModel(network()))
  model.fit(IMAGES, LABELS, verbose=0)
  path = str(tmp_path / 'model.keras')
  model.save(path)
  loaded = tf.keras.models.load_model(path)
  for mine, its in zip(model.weights, loaded.weights):
    np.testing.assert_array_equal(mine, its)
  assert len(model.weights) == len(loaded.weights)
