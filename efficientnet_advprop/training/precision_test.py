import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import attacks
from efficientnet_advprop import config as config_lib
from efficientnet_advprop import devices
from efficientnet_advprop import losses
from efficientnet_advprop.base import errors
from efficientnet_advprop.config import recipes
from efficientnet_advprop.layers import normalization
from efficientnet_advprop.methods import gradients
from efficientnet_advprop.models import factory
from efficientnet_advprop.testing import tiny_runs
from efficientnet_advprop.testing import whole_runs
from efficientnet_advprop.training import optimizers
from efficientnet_advprop.training import precision
from efficientnet_advprop.training import step as step_lib
from efficientnet_advprop.weights import checkpoints

_SIZE = 20  # Images, of which fast_advprop takes four.
_FAST = (
  'attack.target=label',
  'attack.batch_norm=train',
  'train.norm_groups=2',
)
_METHODS = [
  ('vanilla', ()),
  ('advprop', ()),
  ('adversarial', ()),
  ('mixture', ()),
  ('fine_grained', ('data.augmentation=randaugment',)),
  ('fast_advprop', _FAST),
]
_IDS = [method for method, _ in _METHODS]


def _config(*overrides):
  values = {
    'model': tiny_runs.RESNET,
    'data': {'num_classes': 10, 'num_train_images': 100},
    'train': {
      'batch_size': _SIZE,
      'learning_rate': 0.1,
      'warmup_epochs': 0,
      'optimizer': 'sgd',
    },
  }
  return config_lib.from_dict(recipes.apply_overrides(values, overrides))


def _network(config, policy='float32'):
  tf.keras.utils.set_random_seed(0)
  model = config_lib.ModelConfig(**tiny_runs.RESNET)
  with precision.policy(policy):
    return factory.create_model(model, 10, config.auxiliary_domains)


def _batch(size=_SIZE, scale=1.0):
  shape = [size, 16, 16, 3]
  view = tf.random.stateless_uniform(shape, [0, 1], -scale, scale)
  return {
    'image': view,
    'augmented_image': view[:, :, ::-1],
    'label': tf.range(size) % 10,
    'seed': tf.stack([tf.range(size), tf.range(size)], 1),
  }


@pytest.mark.parametrize('method, overrides', _METHODS, ids=_IDS)
def test_the_scale_changes_gradients_alone(method, overrides):
  """In float32, where nothing underflows: it cancels to the last bits.

  The attack by smoothed labels would turn signs of gradients that are nearly 0.
  """
  config = _config(f'train.method={method}', *overrides)
  batch, results = _batch(), []
  for scale in (None, tf.constant(1024.0)):
    network = _network(config)

    def penalty(network=network):
      return losses.weight_penalty(network.trainable_variables, 1e-3)

    results.append(
      gradients.of_part(network, batch, config, 0, 2, penalty, scale)
    )
  plain, scaled = results
  np.testing.assert_allclose(plain.losses, scaled.losses, rtol=1e-5)
  assert len(plain.gradients) == len(scaled.gradients)
  for one, other in zip(plain.gradients, scaled.gradients):
    largest = np.abs(one).max()
    np.testing.assert_allclose(one * 1024, other, atol=2e-3 * 1024 * largest)


def _state(model, average, optimizer):
  optimizer_variables = [
    v for v in optimizer.variables if v is not optimizer.iterations
  ]
  variables = [*model.variables, *average.variables, *optimizer_variables]
  return [variable.numpy() for variable in variables]


@pytest.mark.parametrize('method, overrides', _METHODS, ids=_IDS)
def test_a_step_that_overflows_leaves_all_but_the_scale(method, overrides):
  parts = () if method == 'fast_advprop' else ('train.accumulation_steps=2',)
  config = _config(
    f'train.method={method}',
    'train.precision=mixed_float16',
    *overrides,
    *parts,
  )
  model = _network(config, 'mixed_float16')
  average = _network(config)
  optimizer = optimizers.create_optimizer(config, model)
  scale = optimizer._loss_scale.current_loss_scale
  scale.assign(2.0**40)
  batch = _batch()
  before = _state(model, average, optimizer)
  made = step_lib.train_step(model, average, optimizer, batch, config)
  assert made[-1] == 1 and float(scale) == 2.0**39
  assert int(optimizer.iterations) == 1
  for old, new in zip(before, _state(model, average, optimizer)):
    np.testing.assert_array_equal(old, new)
  scale.assign(64.0)
  made = step_lib.train_step(model, average, optimizer, batch, config)
  assert made[-1] == 0 and float(scale) == 64
  assert np.isfinite(made).all() and int(optimizer.iterations) == 2
  changed = [
    (old != new).any()
    for old, new in zip(before, _state(model, average, optimizer))
  ]
  assert np.mean(changed) > 0.5


def test_images_that_are_not_finite_leave_no_statistics():
  """The forward pass itself overflows, so that no scale would help."""
  config = _config('train.method=vanilla', 'train.precision=mixed_float16')
  model = _network(config, 'mixed_float16')
  average = _network(config)
  optimizer = optimizers.create_optimizer(config, model)
  before = _state(model, average, optimizer)
  batch = _batch()
  batch['image'] *= float('inf')
  made = step_lib.train_step(model, average, optimizer, batch, config)
  assert made[-1] == 1 and not np.isfinite(made[0])
  for old, new in zip(before, _state(model, average, optimizer)):
    np.testing.assert_array_equal(old, new)


def test_all_replicas_skip_what_overflows_on_one(two_replicas):
  with two_replicas.scope():
    weight = tf.Variable(1.0)
    statistic = tf.Variable(
      [3.0],
      trainable=False,
      synchronization=tf.VariableSynchronization.ON_READ,
      aggregation=tf.VariableAggregation.MEAN,
    )
    optimizer = tf.keras.optimizers.SGD(0.5, momentum=0.9)
    optimizer.build([weight])
    optimizer = precision.scaling(optimizer, two_replicas)

  def step(bad):
    context = tf.distribute.get_replica_context()
    scale = precision.loss_scale(optimizer)
    old = precision.copies([statistic])
    is_bad = bad & (context.replica_id_in_sync_group == 1)
    statistic.assign([float('nan')] if is_bad else [4.0])
    gradient = tf.where(is_bad, float('inf'), scale)
    summed = devices.summed([gradient])
    made = precision.apply_gradients(optimizer, summed, [weight])
    precision.put_back([statistic], old, made)
    return made

  @tf.function
  def run(bad):
    return two_replicas.run(step, args=(bad,))

  found = two_replicas.experimental_local_results(run(tf.constant(True)))
  assert [bool(made) for made in found] == [False, False]
  values = two_replicas.experimental_local_results(weight)
  assert [float(value) for value in values] == [1.0, 1.0]
  assert float(statistic.numpy()[0]) == 3
  assert float(optimizer.loss_scale) == 2.0**14
  found = two_replicas.experimental_local_results(run(tf.constant(False)))
  assert [bool(made) for made in found] == [True, True]
  values = two_replicas.experimental_local_results(weight)
  assert [float(value) for value in values] == [0.0, 0.0]  # 1 - .5 (1 + 1)
  assert float(statistic.numpy()[0]) == 4
  assert int(optimizer.iterations.numpy()) == 2


def _checkpoint(name):
  layer = tf.keras.layers.Dense(1)
  layer.build([None, 2])
  optimizer = tf.keras.optimizers.SGD(0.5, momentum=0.9)
  optimizer.build(layer.trainable_variables)
  if name == 'mixed_float16':
    optimizer = precision.scaling(optimizer, tf.distribute.get_strategy())
  return tf.train.Checkpoint(model=layer, ema=layer, optimizer=optimizer)


@pytest.mark.parametrize('before', ['float32', 'mixed_float16'])
@pytest.mark.parametrize('after', ['float32', 'mixed_float16'])
def test_a_run_resumes_with_its_scale_or_another_precision(
  tmp_path, before, after
):
  written = _checkpoint(before)
  written.model.kernel.assign([[2.0], [3.0]])
  written.optimizer.iterations.assign(7)
  if before == 'mixed_float16':
    written.optimizer._loss_scale.current_loss_scale.assign(256.0)
    written.optimizer.dynamic_counter.assign(5)
  directory = str(tmp_path)
  checkpoints.CheckpointManager(written, directory, 1).save(7)
  checkpoints.CheckpointManager(written, directory, 2).save(8)
  read = _checkpoint(after)
  manager = checkpoints.CheckpointManager(
    read, directory, 2, reader=precision.reader(read)
  )
  for _ in range(2):  # The best checkpoint may be another file.
    assert manager.restore()
    assert int(read.optimizer.iterations) == 7
    np.testing.assert_array_equal(read.model.kernel, [[2.0], [3.0]])
    if after == 'mixed_float16':
      kept = before == after
      assert float(read.optimizer.loss_scale) == (256 if kept else 2**15)
      assert int(read.optimizer.dynamic_counter) == (5 if kept else 0)


def test_another_network_is_still_refused(tmp_path):
  written = _checkpoint('mixed_float16')
  checkpoints.CheckpointManager(written, str(tmp_path), 1).save(1)
  read = _checkpoint('float32')
  read.model.second = tf.Variable(0.0)
  manager = checkpoints.CheckpointManager(
    read, str(tmp_path), 1, reader=precision.reader(read)
  )
  with pytest.raises(errors.CheckpointError, match='another model'):
    manager.restore()


def test_raw_weights_are_not_evaluated_in_float16():
  with pytest.raises(config_lib.ConfigError, match="'raw'; allowed: ema with"):
    _config('train.precision=mixed_float16', 'eval.weights=raw')


@pytest.fixture(scope='module', name='trained')
def _trained():
  """A network that has memorized 64 images, in two precisions."""
  config = _config('train.method=vanilla')
  images, labels = _batch(64)['image'], _batch(64)['label']
  network = _network(config)
  for layer in network.submodules:
    if isinstance(layer, normalization.AuxBatchNormalization):
      layer.momentum = 0.8
  optimizer = tf.keras.optimizers.SGD(0.1, momentum=0.9)
  optimizer.build(network.trainable_variables)

  @tf.function
  def step():
    with tf.GradientTape() as tape:
      logits = network(images, training=True)
      loss = tf.reduce_mean(losses.cross_entropy(labels, logits))
    variables = network.trainable_variables
    optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
    return loss

  for _ in range(60):
    loss = step()
  assert loss < 1e-2
  twin = _network(config, 'mixed_float16')
  twin.set_weights(network.get_weights())
  return {'float32': network, 'mixed_float16': twin}, images, labels


def _attacked(trained, policy, scale):
  """Returns the share of zero signs, and how much the attack adds to losses."""
  networks, images, labels = trained
  network, loss_fn = networks[policy], attacks.scaled_loss(scale)
  with tf.GradientTape() as tape:
    tape.watch(images)
    loss = loss_fn(labels, network(images))
  zeros = np.mean(tape.gradient(loss, images) == 0)
  config = config_lib.AttackConfig(
    name='ifgsm', epsilon=4, num_steps=4, step_size=1, target='label'
  )
  adversarial = attacks.attack(
    lambda x: network(x), images, labels, config, loss_fn=loss_fn
  )
  assert adversarial.dtype == tf.float32
  assert np.abs(adversarial - images).max() <= 4 * attacks.PIXEL_LEVEL + 1e-6
  before, after = (
    tf.reduce_mean(losses.cross_entropy(labels, networks['float32'](x)))
    for x in (images, adversarial)
  )
  return zeros, float(after - before)


def test_the_attack_of_float16_is_as_strong_as_float32_s(trained):
  """With the scale of a new run, and not without it."""
  zeros, gain = _attacked(trained, 'float32', 1 / 64)
  found = {
    scale: _attacked(trained, 'mixed_float16', scale / 64)
    for scale in (2.0**15, 1.0)
  }
  scaled_zeros, scaled_gain = found[2.0**15]
  assert scaled_zeros <= zeros + 1e-3
  assert scaled_gain == pytest.approx(gain, rel=0.02) and gain > 0.1
  weak_zeros, weak_gain = found[1.0]
  assert weak_zeros > zeros + 0.1
  assert weak_gain < 0.95 * gain


@pytest.mark.slow
@pytest.mark.usefixtures('plain_layers')
@pytest.mark.parametrize('replicas', [1, 2])
def test_float16_skips_steps_counts_them_and_resumes_to_the_same_bits(
  tmp_path, two_replicas, replicas
):
  """The first steps overflow, so that the scale falls before the cut."""
  strategy = two_replicas if replicas == 2 else whole_runs.ONE_DEVICE
  config = whole_runs.config(
    'train.precision=mixed_float16', 'train.accumulation_steps=2'
  )
  whole = whole_runs.start(tmp_path / 'whole', config, strategy)
  # So large that some steps overflow for certain.
  whole.optimizer._loss_scale.current_loss_scale.assign(2.0**34)
  whole.train()
  lines = whole_runs.metrics(tmp_path / 'whole')
  assert lines[0]['skipped_steps'] == 2
  assert lines[0]['loss_scale'] == 2.0**32
  assert [line['step'] for line in lines] == [2, 4, 6]
  whole_runs.cut(tmp_path / 'whole', tmp_path / 'cut', 2)
  resumed = whole_runs.start(tmp_path / 'cut', config, strategy)
  assert resumed.step == 2
  assert float(resumed.optimizer.loss_scale) == 2.0**32
  resumed.train()
  whole_runs.assert_same(whole_runs.state(resumed), whole_runs.state(whole))
  assert whole_runs.metrics(tmp_path / 'cut') == lines
  scales = [run.optimizer.loss_scale.numpy() for run in (resumed, whole)]
  assert scales[0] == scales[1]
  assert whole.average.stem.compute_dtype == 'float32'


@pytest.mark.slow
@pytest.mark.usefixtures('plain_layers')
def test_float16_ends_when_no_scale_helps(tmp_path):
  config = whole_runs.config(
    'train.precision=mixed_float16', 'train.loss_weight=1000'
  )
  trainer = whole_runs.start(tmp_path, config)
  trainer.optimizer._loss_scale.current_loss_scale.assign(1.0)
  kernel = trainer.model.classifier.kernel
  kernel.assign(kernel * 1e6)
  cause = whole_runs.cause(trainer)
  assert cause.startswith('step 1: gradients of the loss without a scale not')
  assert 'train.precision=mixed_bfloat16' in cause
