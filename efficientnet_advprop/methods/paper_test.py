import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import pretrained
from efficientnet_advprop.config import recipes
from efficientnet_advprop.methods import gradients
from efficientnet_advprop.methods import paper

_STEP = tf.constant(0, tf.int64)


def _config(method, *overrides):
  values = {
    'train': {'method': method, 'batch_size': 4, 'epochs': 10},
    'data': {'num_train_images': 4, 'augmentation': 'randaugment'},
  }
  return config_lib.from_dict(recipes.apply_overrides(values, overrides))


@pytest.fixture(scope='module', name='model')
def _model():
  tf.keras.utils.set_random_seed(0)
  return pretrained.build_model(
    'resnet-50',
    10,
    ('adversarial', 'augmented', 'strong'),
    image_size=16,
    width_coefficient=0.125,
    depth_coefficient=0.1,
  )


@pytest.fixture(name='batch')
def _batch():
  images = tf.random.stateless_uniform([2, 4, 16, 16, 3], [3, 4], -1, 1)
  return {
    'image': images[0],
    'augmented_image': images[1],
    'label': tf.constant([0, 1, 2, 9]),
    'seed': tf.stack([tf.range(4), tf.range(4)], 1),
  }


def _distance(images, others):
  """In 0-255 units."""
  return np.abs(images - others).max() * 255 / 2


def test_every_method_names_its_passes_and_domains(model, batch):
  for name, method in paper.METHODS.items():
    config = _config(name)
    passes = method(model, batch, config, _STEP)
    names = [f'{part.name}_loss' for part in passes]
    assert names == gradients.loss_names(config)
    domains = tuple(part.domain for part in passes)
    assert domains == ('main', *config.auxiliary_domains)


def test_vanilla_is_the_clean_batch_through_the_main_norms(model, batch):
  (clean,) = paper.vanilla(model, batch, _config('vanilla'), _STEP)
  assert clean.domain == 'main'
  np.testing.assert_array_equal(clean.images, batch['image'])


def test_advprop_attacks_the_network_of_the_auxiliary_norms(model, batch):
  config = _config('advprop', 'attack.epsilon=4')
  run = lambda: paper.advprop(model, batch, config, _STEP)
  clean, adversarial = run()
  np.testing.assert_array_equal(clean.images, batch['image'])
  assert adversarial.domain == 'adversarial'
  assert _distance(adversarial.images, batch['image']) == pytest.approx(4)
  assert (adversarial.seeds != clean.seeds).numpy().any()
  _assert_attacks(model, 'adversarial', lambda: run()[1].images)


def _assert_attacks(model, attacked, make_images):
  """Only the statistics of the attacked domain change what is made."""
  before = make_images()
  for domain in ('main', *model.auxiliary_domains):
    mean = model.stem.norm.norm_of(domain).moving_mean
    mean.assign_add(tf.ones_like(mean))
    changed = (make_images() != before).numpy().any()
    assert changed == (domain == attacked), domain
    mean.assign_sub(tf.ones_like(mean))


def test_adversarial_training_sees_adversarial_images_alone(model, batch):
  config = _config('adversarial', 'attack.epsilon=2')
  run = lambda: paper.adversarial(model, batch, config, _STEP)
  (only,) = run()
  assert only.images.shape == batch['image'].shape
  assert _distance(only.images, batch['image']) == pytest.approx(2)
  _assert_attacks(model, 'main', lambda: run()[0].images)


def test_a_mixture_passes_both_through_the_main_norms_at_once(model, batch):
  config = _config('mixture', 'attack.epsilon=2')
  run = lambda: paper.mixture(model, batch, config, _STEP)
  (both,) = run()
  np.testing.assert_array_equal(both.images[:4], batch['image'])
  assert _distance(both.images[4:], batch['image']) == pytest.approx(2)
  np.testing.assert_array_equal(both.labels, [0, 1, 2, 9] * 2)
  assert len({tuple(seed) for seed in both.seeds.numpy()}) == 8
  _assert_attacks(model, 'main', lambda: run()[0].images)


@pytest.mark.parametrize('step, is_attacked', [(0, 1), (4, 1), (5, 0), (9, 0)])
def test_finetuning_turns_to_clean_images_halfway(
  model, batch, step, is_attacked
):
  config = _config('pretrain_finetune')
  assert config.train_steps == 10
  (only,) = paper.pretrain_finetune(
    model, batch, config, tf.constant(step, tf.int64)
  )
  assert (_distance(only.images, batch['image']) > 0) == is_attacked


def test_fine_grained_keeps_three_kinds_of_images_apart(model, batch):
  config = _config('fine_grained', 'attack.epsilon=2')
  run = lambda: paper.fine_grained(model, batch, config, _STEP)
  clean, augmented, adversarial = run()
  np.testing.assert_array_equal(clean.images, batch['image'])
  np.testing.assert_array_equal(augmented.images, batch['augmented_image'])
  made_from = batch['augmented_image']
  assert _distance(adversarial.images, made_from) == pytest.approx(2)
  seeds = {tuple(seed) for part in run() for seed in part.seeds.numpy()}
  assert len(seeds) == 12
  _assert_attacks(model, 'adversarial', lambda: run()[2].images)


def test_a_further_domain_is_a_config_entry(model, batch):
  config = _config(
    'fine_grained',
    'train.domains.strong.view=plain',
    'train.domains.strong.attack.epsilon=8',
  )
  strong = paper.fine_grained(model, batch, config, _STEP)[3]
  assert (strong.name, strong.domain) == ('strong', 'strong')
  assert 4 < _distance(strong.images, batch['image']) <= 8.001
  _assert_attacks(
    model,
    'strong',
    lambda: paper.fine_grained(model, batch, config, _STEP)[3].images,
  )
