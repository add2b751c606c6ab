import os

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import pretrained
from efficientnet_advprop.base import errors
from efficientnet_advprop.testing import tiny_runs
from efficientnet_advprop.weights import checkpoints
from efficientnet_advprop.weights import transfer

_NORM_VARIABLES = ('gamma', 'beta', 'moving_mean', 'moving_variance')


def _model(domains=('adversarial',), classes=10, **settings):
  settings = {**tiny_runs.EFFICIENTNET, **settings}
  return pretrained.build_model('efficientnet-b0', classes, domains, **settings)


def _randomized(model, seed):
  rng = np.random.default_rng(seed)
  for variable in model.variables:
    variable.assign(rng.uniform(0.5, 1.5, variable.shape))
  return model


def _save(directory, domains):
  """A run's folder; returns it with the averaged network."""
  raw, average = (_randomized(_model(domains), seed) for seed in (1, 2))
  checkpoint = tf.train.Checkpoint(
    model=raw, ema=average, optimizer=tf.train.Checkpoint()
  )
  folder = os.path.join(directory, 'checkpoints')
  checkpoints.CheckpointManager(checkpoint, folder, 1).save(7)
  return str(directory), average


@pytest.fixture(scope='module', name='run')
def _run(tmp_path_factory):
  return _save(tmp_path_factory.mktemp('run'), ('adversarial',))


@pytest.fixture(scope='module', name='plain_run')
def _plain_run(tmp_path_factory):
  return _save(tmp_path_factory.mktemp('plain'), ())


def _assert_equal(ours, theirs):
  assert len(ours) == len(theirs)
  for one, other in zip(ours, theirs):
    np.testing.assert_array_equal(one, other)


def test_all_averaged_weights_are_taken(run):
  model_dir, average = run
  model = _model()
  transfer.initialize(model, model_dir)
  _assert_equal(model.variables, average.variables)


def test_another_number_of_classes_starts_at_zero(run, caplog):
  model_dir, average = run
  model = _model(classes=3)
  assert np.any(model.classifier.kernel)  # From scratch it is drawn.
  with caplog.at_level('INFO', 'absl'):
    transfer.initialize(model, os.path.join(model_dir, 'checkpoints', 'ckpt-7'))
  _assert_equal(model.variables[:-2], average.variables[:-2])
  assert 'starts at zero (10 classes there, 3 here)' in caplog.text
  images = tf.random.stateless_uniform([4, 16, 16, 3], [0, 0], -1, 1)
  np.testing.assert_array_equal(model(images), np.zeros([4, 3]))
  with tf.GradientTape() as tape:
    logits = model(images, training=True, seed=tf.constant([0, 0]))
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
      [0, 1, 2, 0], logits
    )
  # The classifier learns at once, the loaded weights from the second step on.
  gradients = tape.gradient(
    losses, [model.classifier.kernel, model.stem.kernel]
  )
  np.testing.assert_allclose(losses, np.log(3), rtol=1e-6)
  assert np.any(gradients[0]) and not np.any(gradients[1])


def test_missing_auxiliary_norms_are_copies_of_the_main_ones(plain_run, caplog):
  model_dir, average = plain_run
  model = _model()
  with caplog.at_level('INFO', 'absl'):
    transfer.initialize(model, model_dir)
  norm, theirs = model.blocks[2].depthwise.norm, average.blocks[2].depthwise
  for name in _NORM_VARIABLES:
    expected = getattr(theirs.norm, name)
    for domain in ('main', 'adversarial'):
      np.testing.assert_array_equal(
        getattr(norm.norm_of(domain), name), expected
      )
  assert 'the norms of adversarial start as copies' in caplog.text
  images = tf.random.stateless_uniform([2, 16, 16, 3], [0, 0], -1, 1)
  np.testing.assert_array_equal(
    model(images, domain='adversarial'), model(images)
  )


def test_a_further_domain_is_copied_and_the_known_one_kept(run):
  model_dir, average = run
  model = _model(('augmented', 'adversarial'))
  transfer.initialize(model, model_dir)
  norm, theirs = model.head.norm, average.head.norm
  for name in _NORM_VARIABLES:
    for domain, source in (('augmented', 'main'), ('adversarial',) * 2):
      np.testing.assert_array_equal(
        getattr(norm.norm_of(domain), name),
        getattr(theirs.norm_of(source), name),
      )


def test_norms_without_use_are_left_out(run):
  model_dir, average = run
  model = _model(())
  transfer.initialize(model, model_dir)
  np.testing.assert_array_equal(
    model.stem.norm.moving_mean, average.stem.norm.moving_mean
  )


@pytest.mark.parametrize(
  'settings, message',
  [
    (dict(width_coefficient=0.5), r'has the shape \(.*\), not \('),
    (dict(depth_coefficient=0.6), r'missing blocks/\S+ and \d+ more'),
    (dict(classes=3, width_coefficient=0.5), r'has the shape'),
  ],
)
def test_another_network_is_refused_in_one_line(run, settings, message):
  model = _model(**settings)
  before = [variable.numpy() for variable in model.variables]
  with pytest.raises(errors.CheckpointError, match=message) as caught:
    transfer.initialize(model, run[0])
  assert '\n' not in str(caught.value)
  assert run[0] in str(caught.value)
  _assert_equal(model.variables, before)


def test_surplus_variables_are_named(tmp_path):
  average = _model()
  average.more = tf.Variable(1.0)
  tf.train.Checkpoint(ema=average).write(str(tmp_path / 'ckpt-1'))
  with pytest.raises(errors.CheckpointError, match=r'unexpected more$'):
    transfer.initialize(_model(), str(tmp_path))


def test_what_is_no_run_is_refused(run, tmp_path):
  with pytest.raises(errors.CheckpointError, match='holds no run or'):
    transfer.initialize(_model(), str(tmp_path))
  tf.train.Checkpoint(other=tf.Variable(1.0)).write(str(tmp_path / 'ckpt-1'))
  with pytest.raises(errors.CheckpointError, match='no weights that are known'):
    transfer.initialize(_model(), str(tmp_path))
  (tmp_path / 'ckpt-2.index').write_bytes(b'no index')
  with pytest.raises(errors.CheckpointError, match='none of 1 check'):
    transfer.initialize(_model(), str(tmp_path / 'ckpt-2'))
