import json

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import models
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.evaluation import evaluator

_CONFIG = config_lib.from_dict(
  {
    'model': {
      'image_size': 16,
      'width_coefficient': 0.25,
      'depth_coefficient': 0.1,
    },
    'data': {
      'num_classes': 10,
      'num_train_images': 2500,
      'num_eval_images': 500,
    },
    'train': {'batch_size': 16},
    'eval': {'batch_size': 96},  # Leaves 20 images for the last batch.
  }
)


def _evaluator(strategy):
  tf.keras.utils.set_random_seed(0)
  with strategy.scope():
    model = models.create_model(_CONFIG.model, 10)
  norm = model.head.norm.norm_of('adversarial')
  norm.gamma.assign(norm.gamma * -1)  # The domains must differ.
  return evaluator.Evaluator(_CONFIG, strategy, model), model


@pytest.fixture(scope='module', name='one')
def _one():
  return _evaluator(tf.distribute.OneDeviceStrategy('CPU:0'))


def _by_numpy(model, domain):
  """The same figures, image by image."""
  losses, ranks = [], []
  for batch in pipeline.eval_dataset(_CONFIG, 'validation', batch_size=100):
    logits = model(batch['image'], domain=domain).numpy().astype(np.float64)
    labels = batch['label'].numpy()
    true = logits[np.arange(len(labels)), labels]
    losses += list(np.log(np.exp(logits).sum(1)) - true)
    ranks += list((logits > true[:, None]).sum(1))
  return (
    np.mean(losses),
    np.mean(np.array(ranks) < 1),
    np.mean(np.array(ranks) < 5),
  )


@pytest.mark.parametrize('domain', ['main', 'adversarial'])
def test_every_image_counts_once(one, domain):
  judge, model = one
  result = judge.evaluate(config_lib.TestConfig(domain=domain))
  loss, top_1, top_5 = _by_numpy(model, domain)
  assert result['num_examples'] == 500
  assert result['domain'] == domain
  assert result['loss'] == pytest.approx(loss, rel=1e-5)
  assert result['top_1_accuracy'] == pytest.approx(top_1, abs=1e-9)
  assert result['top_5_accuracy'] == pytest.approx(top_5, abs=1e-9)


def test_two_replicas_agree(one, two_replicas):
  result = _evaluator(two_replicas)[0].evaluate()
  expected = one[0].evaluate()
  assert result == pytest.approx(expected, rel=1e-5)


def test_an_attack_raises_the_loss_and_a_split_can_be_named(one):
  judge, _ = one
  attack = config_lib.AttackConfig(epsilon=8)
  attacked = judge.evaluate(config_lib.TestConfig(attack=attack))
  assert attacked['loss'] > judge.evaluate()['loss']
  shown = []
  judge.evaluate(
    config_lib.TestConfig(split='stylized'),
    lambda done, total: shown.append((done, total)),
  )
  assert shown[-1] == (500, 500) and len(shown) == 6


def test_fewer_than_five_classes_have_a_top_5():
  logits = tf.constant([[1.0, 2.0], [3.0, 0.0]])
  labels, weights = tf.constant([0, 0]), tf.constant([1.0, 1.0])
  sums = evaluator.batch_sums(logits, labels, weights)
  np.testing.assert_allclose(sums[2:], [1, 2])


def test_padding_has_no_weight():
  logits = tf.constant([[1.0, 2.0], [3.0, 0.0]])
  labels, weights = tf.constant([1, 1]), tf.constant([1.0, 0.0])
  sums = evaluator.batch_sums(logits, labels, weights)
  np.testing.assert_allclose(sums, [1, np.log1p(np.exp(-1)), 1, 1], rtol=1e-6)


def test_a_result_is_written_whole(tmp_path):
  path = tmp_path / 'evals' / 'x.json'
  evaluator.write_result(str(path), {'loss': 1.5})
  assert json.loads(path.read_text()) == {'loss': 1.5}
  assert [entry.name for entry in path.parent.iterdir()] == ['x.json']
