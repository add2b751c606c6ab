import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import attacks
from efficientnet_advprop import config as config_lib
from efficientnet_advprop import pretrained
from efficientnet_advprop.testing import tiny_runs

_SEED = tf.constant([1, 2])
_LEVEL = 2 / 255


@pytest.fixture(scope='module', name='model')
def _model():
  tf.keras.utils.set_random_seed(0)
  model = pretrained.build_model(
    'efficientnet-b0',
    10,
    stem_stride=1,
    **tiny_runs.EFFICIENTNET,
  )
  # A fresh classifier has gradients too small to tell anything.
  model.classifier.kernel.assign(model.classifier.kernel * 20)
  return model


@pytest.fixture(name='batch')
def _batch():
  images = tf.random.stateless_uniform([6, 16, 16, 3], [3, 4], -1, 1)
  return images, tf.constant([0, 1, 2, 3, 4, 5])


def _logits_fn(model, domain='adversarial', training=False):
  return lambda x: model(x, training=training, domain=domain, seed=[0, 0])


def _attack(model, batch, logits_fn=None, **settings):
  config = config_lib.AttackConfig(**settings)
  logits_fn = logits_fn or _logits_fn(model)
  return attacks.attack(logits_fn, *batch, config, _SEED)


def test_zero_epsilon_is_the_identity(model, batch):
  adversarial = _attack(model, batch, epsilon=0)
  np.testing.assert_array_equal(adversarial, batch[0])


@pytest.mark.parametrize('name', ['pgd', 'ifgsm', 'fgsm'])
def test_the_result_stays_in_the_ball_and_range(model, batch, name):
  adversarial = _attack(model, batch, name=name, epsilon=4).numpy()
  distance = np.abs(adversarial - batch[0]).max()
  assert distance == pytest.approx(4 * _LEVEL, abs=1e-6)
  assert np.abs(adversarial).max() <= 1


def test_gd_leaves_the_ball(model, batch):
  adversarial = _attack(model, batch, name='gd', epsilon=2, num_steps=9)
  distance = np.abs(adversarial - batch[0]).max()
  assert 2 * _LEVEL < distance <= (2 + 9) * _LEVEL + 1e-6
  assert np.abs(adversarial).max() <= 1


def test_the_attack_raises_the_loss_and_a_target_lowers_it(model, batch):
  images, labels = batch
  loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
  logits_fn = _logits_fn(model)
  clean = loss(labels, logits_fn(images))
  away = _attack(model, batch, epsilon=4, target='label')
  assert loss(labels, logits_fn(away)) > clean
  towards = _attack(model, batch, epsilon=4)  # A random class is the default.
  targets = attacks.random_targets(
    labels, tf.random.experimental.stateless_split(_SEED, 6), 10
  )
  assert loss(targets, logits_fn(towards)) < loss(targets, logits_fn(images))


def test_targets_are_uniform_over_the_wrong_classes():
  seeds = tf.stack([tf.range(4000), tf.zeros([4000], tf.int32)], 1)
  labels = tf.range(4000) % 5
  targets = tf.function(attacks.random_targets)(labels, seeds, 5)
  offsets = np.bincount((targets - labels).numpy() % 5, minlength=5)
  assert offsets[0] == 0
  chi_square = ((offsets[1:] - 1000) ** 2 / 1000).sum()
  assert chi_square < 16.3  # 99.9% quantile at 3 degrees of freedom.


def test_a_target_costs_no_pass_of_its_own(model, batch):
  """The network runs once for each step, and never on fewer images."""
  shapes = []

  def logits_fn(images):
    shapes.append(images.shape)
    return _logits_fn(model)(images)

  _attack(model, batch, logits_fn, epsilon=2, target='random')
  assert shapes == 3 * [batch[0].shape]
  shapes.clear()

  @tf.function
  def run(images, labels):
    return _attack(
      model, (images, labels), logits_fn, epsilon=2, target='random'
    )

  run.get_concrete_function(*batch)
  assert shapes == [batch[0].shape]  # One trace for all steps.


def test_the_graph_holds_the_network_once_for_all_steps(model, batch):
  """TensorFlow would put a copy of it in the place of each step."""

  @tf.function
  def run(images, labels):
    return _attack(model, (images, labels), epsilon=4, num_steps=5)

  graph = run.get_concrete_function(*batch).graph.as_graph_def()
  called = [node.attr['f'].func.name for node in graph.node]
  (function,) = (
    function.signature.name
    for function in graph.library.function
    if function.attr['_noinline'].b
  )
  assert called.count(function) == 5


def test_a_target_needs_a_second_class(batch):
  flat = lambda x: tf.reshape(x, [6, -1])[:, :1]
  config = config_lib.AttackConfig()
  with pytest.raises(ValueError, match='at least 2 classes; the network has 1'):
    attacks.attack(flat, batch[0], 0 * batch[1], config, _SEED)


def test_statistics_and_weights_stay(model, batch):
  before = [weight.numpy() for weight in model.weights]
  _attack(model, batch, epsilon=4)
  for weight, value in zip(model.weights, before):
    np.testing.assert_array_equal(weight, value)


def test_batch_statistics_move_once_for_each_step(model, batch):
  norm = model.stem.norm.norm_of('adversarial')
  main = model.stem.norm.moving_mean.numpy()
  before = norm.moving_mean.numpy()
  norm.moving_mean.assign(tf.ones_like(norm.moving_mean) * 100)
  logits_fn = _logits_fn(model, training=True)
  _attack(model, batch, logits_fn, name='ifgsm', epsilon=2, batch_norm='train')
  # 3 steps at momentum .99 from a mean that dwarfs the batch's.
  expected = 100 * 0.99**3
  np.testing.assert_allclose(norm.moving_mean, expected, rtol=0.01)
  np.testing.assert_array_equal(model.stem.norm.moving_mean, main)
  norm.moving_mean.assign(before)


def test_no_gradient_flows_through_the_attack(model, batch):
  images, labels = batch
  with tf.GradientTape() as tape:
    tape.watch(images)
    adversarial = _attack(model, (images, labels), epsilon=1)
    total = tf.reduce_sum(adversarial)
  assert tape.gradient(total, images) is None


def test_only_the_path_to_the_pixels_is_differentiated(
  model, batch, monkeypatch
):
  """No gradient of a kernel is computed; those in the trace are pruned."""

  @tf.function
  def run(images, labels):
    return _attack(model, (images, labels), epsilon=1)

  # The steps share a function; inlined, its operations can be seen.
  monkeypatch.setattr(tf, 'function', lambda function, **_: function)
  graph = run.get_concrete_function(*batch).graph
  needed, todo = set(), [graph.outputs[0].op]
  while todo:
    op = todo.pop()
    if op not in needed:
      needed.add(op)
      todo += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
  kinds = {op.type for op in needed}
  assert 'Conv2DBackpropInput' in kinds
  assert not [kind for kind in kinds if 'BackpropFilter' in kind]
  assert not [kind for kind in kinds if 'Assign' in kind]


def test_one_hot_labels_give_the_attack_of_hard_ones(model, batch):
  images, labels = batch
  logits_fn = _logits_fn(model)
  for target in ('label', 'random'):
    config = config_lib.AttackConfig(epsilon=2, target=target)
    hard = attacks.attack(logits_fn, images, labels, config, 7)
    one_hot = tf.one_hot(labels, 10)
    soft = attacks.attack(logits_fn, images, one_hot, config, 7)
    np.testing.assert_array_equal(hard, soft)
    other = attacks.attack(logits_fn, images, labels, config, 8)
    assert (other != hard).numpy().any()


def test_an_attack_without_random_numbers_needs_no_seed(model, batch):
  images, labels = batch
  logits_fn = _logits_fn(model)
  config = config_lib.AttackConfig(name='ifgsm', epsilon=2, target='label')
  np.testing.assert_array_equal(
    attacks.attack(logits_fn, images, labels, config),
    attacks.attack(logits_fn, images, labels, config, _SEED),
  )


@pytest.mark.parametrize(
  'labels, seed, message',
  [
    ([0, 1, 2, 3], None, r'^seed: got None; allowed: an int'),
    ([0, 1, 2, 3], [1, 2, 3], r'^seed: got the shape \(3,\)'),
    ([[0, 1], [2, 3]], 0, r'^labels: got int32 \(2, 2\); allowed: integers'),
    ([0.0, 1.0], 0, r'^labels: got float32 \(2,\); allowed: integers'),
  ],
)
def test_labels_and_seeds_of_another_kind_are_refused(labels, seed, message):
  images = tf.zeros([4, 2, 2, 3])
  config = config_lib.AttackConfig()
  with pytest.raises(ValueError, match=message):
    attacks.attack(lambda x: x, images, tf.constant(labels), config, seed)


def test_the_start_is_uniform_in_the_ball():
  flat = lambda x: tf.reshape(x, [-1, 3 * 64 * 64]) * 0
  adversarial = attacks.attack(
    flat,
    tf.zeros([2, 64, 64, 3]),
    tf.constant([0, 1]),
    config_lib.AttackConfig(epsilon=3, num_steps=1),
    _SEED,
  )
  counts, _ = np.histogram(adversarial, 12, (-3 * _LEVEL, 3 * _LEVEL))
  assert counts.sum() == 2 * 3 * 64 * 64
  chi_square = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
  assert chi_square < 31.3  # 99.9% quantile at 11 degrees of freedom.


@pytest.mark.parametrize(
  'name, epsilon, steps, target',
  [
    ('ifgsm', 4, 5, 'label'),
    ('fgsm', 8, 1, 'label'),
    ('ifgsm', 2, 3, 'random'),
    ('pgd', 4, 5, 'label'),
  ],
)
def test_results_equal_the_adversarial_robustness_toolbox(
  model, batch, monkeypatch, name, epsilon, steps, target
):
  evasion = pytest.importorskip('art.attacks.evasion')
  estimators = pytest.importorskip('art.estimators.classification')
  images, labels = batch
  config = config_lib.AttackConfig(
    name=name, epsilon=epsilon, num_steps=steps, target=target
  )
  ours = _attack(
    model, batch, name=name, epsilon=epsilon, num_steps=steps, target=target
  )
  if target == 'random':
    seeds = tf.random.experimental.stateless_split(_SEED, 6)
    labels = attacks.random_targets(labels, seeds, 10)
  logits_fn = _logits_fn(model)
  classifier = estimators.TensorFlowV2Classifier(
    model=lambda x, training: logits_fn(x),
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
    eps=config.epsilon * _LEVEL,
    eps_step=config.step_size * _LEVEL,
    max_iter=config.num_steps,
    targeted=target == 'random',
    num_random_init=int(config.random_start),
    batch_size=6,
    verbose=False,
  )
  # The toolbox draws a start of its own: give it ours.
  still = config_lib.AttackConfig(epsilon=epsilon, step_size=0, num_steps=1)
  start = attacks.attack(logits_fn, *batch, still, _SEED)
  monkeypatch.setattr(
    f'{evasion.__name__}.projected_gradient_descent'
    '.projected_gradient_descent_tensorflow_v2.random_sphere',
    lambda *_: (start - images).numpy().reshape(6, -1),
  )
  theirs = attack.generate(images.numpy(), labels.numpy())
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
  assert np.abs(theirs - images).max() > 0.9 * epsilon * _LEVEL


def test_an_attack_in_any_pixel_range_is_the_same_attack():
  weights = np.random.default_rng(0).normal(size=(12, 3)).astype('float32')
  logits_fn = lambda x: tf.reshape(x, [-1, 12]) @ weights
  images = np.random.default_rng(1).uniform(-1, 1, (5, 2, 2, 3))
  images = images.astype('float32')
  labels = tf.constant([0, 1, 2, 0, 1])
  low, high = np.array([0.0, -4.0, 100.0]), np.array([255.0, 4.0, 356.0])
  to_range = lambda x: (x + 1) / 2 * (high - low) + low
  to_unit = lambda x: (x - low) / (high - low) * 2 - 1
  for target in ('label', 'random'):
    config = config_lib.AttackConfig(epsilon=3, target=target)
    expected = attacks.attack(logits_fn, images, labels, config, 0)
    found = attacks.attack(
      lambda x: logits_fn(tf.cast(to_unit(x), tf.float32)),
      to_range(images),
      labels,
      config,
      0,
      pixel_range=(low, high),
    )
    np.testing.assert_allclose(to_unit(found), expected, atol=1e-5)


def test_a_loss_of_ones_own_is_raised():
  config = config_lib.AttackConfig(name='ifgsm', epsilon=2, target='label')
  images = tf.zeros([2, 3, 3, 1])
  found = attacks.attack(
    lambda x: x,
    images,
    'anything',
    config,
    loss_fn=lambda labels, outputs: -tf.reduce_sum(outputs),
  )
  np.testing.assert_allclose(found, -2 * np.ones([2, 3, 3, 1]) / 127.5)
  with pytest.raises(ValueError, match='passes no gradient on'):
    attacks.attack(
      lambda x: tf.round(x)[:, 0, 0], images, tf.zeros(2, tf.int32), config
    )
