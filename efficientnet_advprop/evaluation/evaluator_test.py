import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import attacks
from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import randomness
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.data import sources
from efficientnet_advprop.evaluation import evaluator
from efficientnet_advprop.evaluation import image_sets
from efficientnet_advprop.evaluation import scores
from efficientnet_advprop.models import factory
from efficientnet_advprop.testing import tiny_data
from efficientnet_advprop.testing import tiny_runs

_CONFIG = config_lib.from_dict(
  {
    'model': tiny_runs.EFFICIENTNET,
    'data': {
      'num_classes': 10,
      'num_train_images': 2500,
      'num_eval_images': 500,
    },
    'train': {'batch_size': 16},
    'eval': {'batch_size': 96},  # Leaves 20 images for the last batch.
  }
)


def _evaluator(strategy, config=_CONFIG):
  tf.keras.utils.set_random_seed(0)
  with strategy.scope():
    model = factory.create_model(config.model, 10)
  norm = model.head.norm.norm_of('adversarial')
  norm.gamma.assign(norm.gamma * -1)  # The domains must differ.
  # A fresh network's logits are about 1e-6: make them large enough to attack.
  model.classifier.kernel.assign(model.classifier.kernel * 4e6)
  return evaluator.Evaluator(config, strategy, model), model


@pytest.fixture(scope='module', name='one')
def _one():
  return _evaluator(tf.distribute.OneDeviceStrategy('CPU:0'))


def _by_numpy(model, domain):
  """The same figures, image by image."""
  losses, ranks = [], []
  for batch in pipeline.eval_dataset(
    _CONFIG, sources.find(_CONFIG.data, 'validation'), batch_size=100
  ):
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
  result = judge.evaluate(config_lib.NamedTestConfig(domain=domain))
  loss, top_1, top_5 = _by_numpy(model, domain)
  assert result['num_examples'] == 500
  assert result['domain'] == domain
  assert result['loss'] == pytest.approx(loss, rel=1e-5)
  assert result['top_1_accuracy'] == pytest.approx(top_1, abs=1e-9)
  assert result['top_5_accuracy'] == pytest.approx(top_5, abs=1e-9)


@pytest.mark.once
def test_two_replicas_agree(one, two_replicas):
  result = _evaluator(two_replicas)[0].evaluate()
  expected = one[0].evaluate()
  assert result == pytest.approx(expected, rel=1e-5)


def test_an_attack_raises_the_loss_and_a_split_can_be_named(one):
  judge, _ = one
  attack = config_lib.EvalAttackConfig(epsilon=8)
  attacked = judge.evaluate(config_lib.NamedTestConfig(attack=attack))
  assert attacked['loss'] > judge.evaluate()['loss']
  shown = []
  judge.evaluate(
    config_lib.NamedTestConfig(split='stylized'),
    lambda done, total: shown.append((done, total)),
  )
  assert shown[-1] == (500, 500) and len(shown) == 6


@pytest.mark.once
def test_only_some_classes_may_be_chosen(one, tmp_path):
  """As on ImageNet-A: the best of the set's classes counts as the answer."""
  judge, model = one
  found = image_sets.find(_CONFIG, config_lib.NamedTestConfig())
  with pytest.raises(errors.DataError, match='of other classes than the 3'):
    judge.evaluate(images=found._replace(classes=(1, 4, 7)))
  labels, ranks, losses = (1, 4, 7), [], []
  path = tmp_path / 'some-00000-of-00001'
  with tf.io.TFRecordWriter(str(path)) as writer:
    for record in tf.data.TFRecordDataset(found.source.files):
      example = tf.train.Example.FromString(record.numpy())
      feature = example.features.feature['image/class/label']
      if feature.int64_list.value[0] - 1 in labels:
        writer.write(record.numpy())
  data = dataclasses.replace(_CONFIG.data, dir=str(tmp_path))
  config = dataclasses.replace(_CONFIG, data=data)
  some = image_sets.find(config, config_lib.NamedTestConfig(split='some'))
  for batch in pipeline.eval_dataset(config, some.source):
    logits = model(batch['image']).numpy().astype(np.float64)[:, labels]
    for row, label, weight in zip(logits, batch['label'], batch['weight']):
      if weight:
        true = row[labels.index(int(label))]
        ranks.append((row > true).sum())
        losses.append(np.log(np.exp(row).sum()) - true)
  result = judge.evaluate(images=some._replace(classes=labels))
  assert result['num_examples'] == len(ranks) == some.source.size
  assert result['top_1_accuracy'] == pytest.approx(np.mean(np.equal(ranks, 0)))
  assert result['top_5_accuracy'] == 1
  assert result['loss'] == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.once
def test_images_of_another_size_pass_as_they_are(one):
  """As ImageNet-C's 224 pixels pass through a network of any other size."""
  judge, _ = one
  found = image_sets.find(_CONFIG, config_lib.NamedTestConfig())
  stored = dataclasses.replace(found.source, side=40)
  result = judge.evaluate(images=found._replace(source=stored))
  assert result['num_examples'] == 500
  assert result['loss'] != judge.evaluate()['loss']


# --- Restarts ---------------------------------------------------------------

# Steps so short that the start decides much.
_ATTACK = config_lib.EvalAttackConfig(epsilon=6, num_steps=2, step_size=0.25)
_RESTARTED = config_lib.NamedTestConfig(attack=_ATTACK, restarts=3)


@pytest.fixture(scope='module', name='few')
def _few(tmp_path_factory):
  """The config of the first 70 images."""
  folder = tmp_path_factory.mktemp('few')
  shard = os.path.join(
    sources.data_dir(_CONFIG.data), 'validation-00000-of-00002'
  )
  few = tf.data.TFRecordDataset(shard).take(70).as_numpy_iterator()
  tiny_data.write_shard(folder / 'validation-00000-of-00001', list(few))
  changes = {'dir': str(folder), 'num_eval_images': 70}
  return dataclasses.replace(
    _CONFIG,
    data=dataclasses.replace(_CONFIG.data, **changes),
    eval=config_lib.EvalConfig(batch_size=50),
  )


@pytest.fixture(scope='module', name='restarted')
def _restarted(one, few):
  judge = evaluator.Evaluator(few, one[0].strategy, one[1])
  return judge.evaluate(_RESTARTED)


@pytest.mark.once
def test_an_image_is_right_only_if_it_is_after_every_restart(
  one, few, restarted
):
  """Against the outcomes of single attacks, put together image by image."""
  _, model = one
  losses, right = [], []  # Of images, and of images and restarts.
  for batch in pipeline.eval_dataset(
    few, sources.find(few.data, 'validation'), batch_size=70
  ):
    attempts = []
    for number in range(3):
      seeds = randomness.fold(batch['seed'], randomness.RESTART + number)
      images = attacks.attack(
        model, batch['image'], batch['label'], _ATTACK, seeds
      )
      attempts.append(model(images).numpy().astype(np.float64))
    logits, labels = np.stack(attempts), batch['label'].numpy()
    true = np.take_along_axis(logits, labels[None, :, None], 2)[..., 0]
    losses += list((np.log(np.exp(logits).sum(2)) - true).max(0))
    right += list((logits.argmax(2) == labels).T)
  accuracy = np.all(right, axis=1).mean()
  assert restarted['top_1_accuracy'] == pytest.approx(accuracy, abs=1e-9)
  assert restarted['loss'] == pytest.approx(np.mean(losses), rel=1e-5)
  assert accuracy < np.mean(right)  # Restarts differ in what they reach.
  assert restarted['restarts'] == 3
  assert restarted['attack'] == dataclasses.asdict(_ATTACK)


@pytest.mark.once
def test_an_attack_depends_on_no_batch_and_no_replica(few, restarted):
  config = dataclasses.replace(few, eval=config_lib.EvalConfig(batch_size=24))
  strategy = tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1'])
  result = _evaluator(strategy, config)[0].evaluate(_RESTARTED)
  assert result.pop('attack') == restarted['attack']
  expected = {k: v for k, v in restarted.items() if k != 'attack'}
  assert result == pytest.approx(expected, rel=1e-4)


@pytest.mark.once
def test_accuracy_equals_the_adversarial_robustness_toolbox(
  one, few, monkeypatch
):
  evasion = pytest.importorskip('art.attacks.evasion')
  estimators = pytest.importorskip('art.estimators.classification')
  _, model = one
  (batch,) = pipeline.eval_dataset(
    few, sources.find(few.data, 'validation'), batch_size=70
  )
  images, restarts = batch['image'], 4
  # All are right without an attack.
  labels = tf.argmax(model(images), 1, tf.int32)
  ours = tf.function(scores.worst_scores)(
    model, {**batch, 'label': labels}, _ATTACK, restarts
  )
  # The toolbox draws starts of its own: give it ours.
  still = dataclasses.replace(_ATTACK, step_size=0, num_steps=1)
  starts = [
    attacks.attack(
      model,
      images,
      labels,
      still,
      randomness.fold(batch['seed'], randomness.RESTART + number),
    )
    for number in range(restarts)
  ]
  noise = [(start - images).numpy().reshape(70, -1) for start in starts]
  monkeypatch.setattr(
    f'{evasion.__name__}.projected_gradient_descent'
    '.projected_gradient_descent_tensorflow_v2.random_sphere',
    lambda *_: noise.pop(0),
  )
  classifier = estimators.TensorFlowV2Classifier(
    model=lambda x, training: model(x, training=training),
    nb_classes=10,
    input_shape=(16, 16, 3),
    loss_object=tf.keras.losses.SparseCategoricalCrossentropy(
      from_logits=True, reduction='sum'
    ),
    clip_values=(-1, 1),
  )
  attack = evasion.ProjectedGradientDescent(
    classifier,
    norm=np.inf,
    eps=_ATTACK.epsilon * attacks.PIXEL_LEVEL,
    eps_step=_ATTACK.step_size * attacks.PIXEL_LEVEL,
    max_iter=_ATTACK.num_steps,
    num_random_init=restarts,
    batch_size=70,
    verbose=False,
  )
  theirs = attack.generate(images.numpy(), labels.numpy())
  assert not noise
  right = classifier.predict(theirs).argmax(1) == labels.numpy()
  np.testing.assert_array_equal(ours[1].numpy() == 1, right)
  assert 0.05 < right.mean() < 0.95
