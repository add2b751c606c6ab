import dataclasses
import os
import time

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.testing import tiny_data
from efficientnet_advprop.testing import tiny_runs
from efficientnet_advprop.testing import whole_runs
from efficientnet_advprop.training import host_loop
from efficientnet_advprop.training import reporting
from efficientnet_advprop.weights import checkpoints

_EFFICIENTNET = (
  'model.name=efficientnet-b0',
  *tiny_runs.overrides(tiny_runs.EFFICIENTNET),
)
_FAST = (
  'train.method=fast_advprop',
  'attack.target=label',
  'attack.batch_norm=train',
  'train.batch_size=20',
  'train.norm_groups=2',
)
# The attack takes the sign of pixel gradients that are nearly zero. Rounding
# turns some of them, as replicas sum in another order: with so small an attack
# that moves nothing else.
_FAST_STEP = (
  *_FAST,
  *('train.epochs=0.008', 'train.log_steps=1'),
  *('attack.epsilon=0.001', 'attack.step_size=0.001'),
)
pytestmark = pytest.mark.usefixtures('plain_layers')


@pytest.fixture
def no_steps(monkeypatch):
  """A run takes its way, but its steps compute nothing."""
  found = {'loss': 1.0}, reporting.Timing(2, 1.0)
  monkeypatch.setattr(host_loop.HostLoop, 'run', lambda *_: found)


def test_a_run_logs_saves_and_evaluates(whole):
  trainer, model_dir, evaluated = whole
  assert trainer.step == 6 and evaluated == [6]
  lines = whole_runs.metrics(model_dir)
  assert [line['step'] for line in lines] == [2, 4, 6]
  for line in lines:
    losses = line['clean_loss'] + line['adversarial_loss']
    penalty = line['loss'] - losses
    assert 0 < penalty < 0.05 * line['loss']
  paths = checkpoints.checkpoint_paths(os.path.join(model_dir, 'checkpoints'))
  assert [path.rsplit('-')[-1] for path in paths] == ['6', '4', '2']
  assert tf.train.latest_checkpoint(os.path.join(model_dir, 'checkpoints'))


@pytest.mark.usefixtures('no_steps')
def test_the_time_left_hears_of_saves_and_evaluations(monkeypatch, tmp_path):
  """With saves that only take their time."""
  trainer = whole_runs.start(tmp_path)
  monkeypatch.setattr(trainer, '_save', lambda step: time.sleep(0.02))
  spent = []
  monkeypatch.setattr(
    reporting.Reporter, 'spent', lambda self, *found: spent.append(found)
  )
  trainer.train(lambda step: time.sleep(0.04) or {})
  assert [what for what, _ in spent] == ['save', 'save', 'save', 'evaluate']
  for what, seconds in spent:
    assert 0 <= seconds - {'save': 0.02, 'evaluate': 0.04}[what] < 2


@pytest.mark.once
def test_the_first_update_of_the_average_is_the_official_one(tmp_path):
  """2/11 of what the run began with; 1/10 in runs of earlier versions."""
  for first_update, left in ((None, 2 / 11), (0, 1 / 10)):
    config = whole_runs.config('train.epochs=0.0064', 'train.learning_rate=1')
    model_dir = tmp_path / str(first_update)
    trainer = whole_runs.start(model_dir, config)
    if first_update is not None:
      trainer._first_update = first_update
    kernels = trainer.model.stem.kernel, trainer.average.stem.kernel
    before = kernels[0].numpy()
    trainer.train()
    after, average = (kernel.numpy() for kernel in kernels)
    expected = left * before + (1 - left) * after
    np.testing.assert_allclose(average, expected, atol=1e-6)
    assert np.abs(after - before).max() > 1e-3


@pytest.mark.once
@pytest.mark.parametrize(
  'overrides',
  [pytest.param(_EFFICIENTNET, marks=pytest.mark.slow), _FAST_STEP],
)
def test_two_replicas_equal_one_device(two_replicas, tmp_path, overrides):
  """On the same global batches: norms, losses, attack, update and average."""
  assert two_replicas.num_replicas_in_sync == 2
  runs = []
  for strategy in (whole_runs.ONE_DEVICE, two_replicas):
    model_dir = str(tmp_path / str(len(runs)))
    config = whole_runs.config(*overrides)
    trainer = whole_runs.start(model_dir, config, strategy)
    trainer.train()
    runs.append((whole_runs.metrics(model_dir), whole_runs.state(trainer)))
  (metrics, state), (metrics_of_one, state_of_one) = runs[::-1]
  for ours, theirs in zip(metrics, metrics_of_one):
    assert ours == pytest.approx(theirs, rel=1e-4)
  whole_runs.assert_close(state, state_of_one)


@pytest.mark.once
@pytest.mark.parametrize(
  'method, overrides, losses',
  [
    ('pretrain_finetune', (), ['main']),
    (
      'fine_grained',
      (
        'data.augmentation=randaugment',
        'train.domains.strong.attack.epsilon=4',
      ),
      ['clean', 'augmented', 'adversarial', 'strong'],
    ),
    (
      'fast_advprop',
      (*_FAST, 'data.mixup_alpha=0.2', 'data.cutmix_alpha=1'),
      ['clean', 'noise', 'adversarial'],
    ),
    (
      'advprop',
      (
        'train.optimizer=adamw',
        'train.schedule=cosine',
        'train.clip_norm=1',
        'train.auxiliary_weight=0.5',
        'data.mixup_alpha=0.2',
      ),
      ['clean', 'adversarial'],
    ),
  ],
)
def test_every_kind_of_method_trains_and_resumes(
  tmp_path, method, overrides, losses
):
  config = whole_runs.config(
    f'train.method={method}', 'train.optimizer=sgd', *overrides
  )
  whole = whole_runs.start(tmp_path / 'whole', config)
  whole.train()
  whole_runs.cut(tmp_path / 'whole', tmp_path / 'cut', 2)
  resumed = whole_runs.start(tmp_path / 'cut', config)
  assert resumed.step == 2
  resumed.train()
  whole_runs.assert_same(whole_runs.state(resumed), whole_runs.state(whole))
  lines = whole_runs.metrics(tmp_path / 'cut')
  assert lines == whole_runs.metrics(tmp_path / 'whole') and len(lines) == 3
  found = [key for key in lines[0] if key.endswith('_loss')]
  assert found == [f'{name}_loss' for name in losses]


def test_a_batch_that_does_not_divide_is_refused():
  config = whole_runs.config('train.accumulation_steps=3')
  with pytest.raises(config_lib.ConfigError, match='a multiple of 3'):
    whole_runs.start('/nonexistent', config)


def test_the_picture_is_drawn(whole):
  trainer, model_dir, _ = whole
  path = trainer.draw_attack(2)
  assert path == os.path.join(model_dir, 'attack.png')
  pixels = tf.io.decode_png(tf.io.read_file(path))
  assert pixels.shape == (16 + 2 * 114, 3 * 100 + 4, 3)


def test_a_run_starts_from_another_one_unless_it_resumes(whole, tmp_path):
  source, model_dir, _ = whole
  config = whole_runs.config(
    f'train.init_checkpoint={model_dir}', 'data.num_classes=12'
  )
  first = whole_runs.start(tmp_path, config)
  assert first.step == 0 and first.restored is None
  for network in (first.model, first.average):
    whole_runs.assert_same(
      network.variables[:-2], source.average.variables[:-2]
    )
  first._manager.save(0)
  first.model.stem.kernel.assign_add(tf.ones_like(first.model.stem.kernel))
  first._manager.save(1)
  second = whole_runs.start(tmp_path, config)
  assert second.restored
  whole_runs.assert_same(second.model.variables, first.model.variables)


@pytest.mark.once
@pytest.mark.usefixtures('no_steps')
def test_a_run_lists_its_training_images_once(two_replicas, tmp_path):
  """Also where it is resumed on other replicas."""
  directory = str(tmp_path / 'data')
  tiny_data.write_class_folders(directory, {'train': 20}, 10)
  config = whole_runs.config(
    f'data.dir={directory}', 'data.num_train_images=20'
  )
  steps = dataclasses.replace(config.train, epochs=5, batch_size=4)
  config = dataclasses.replace(config, train=steps)
  model_dir = str(tmp_path / 'run')
  for strategy in whole_runs.ONE_DEVICE, two_replicas:
    with tiny_data.counting_listings() as counts:
      whole_runs.start(model_dir, config, strategy).train()
    assert counts[os.path.join(directory, 'train', 'class_0')] == 1
    config = dataclasses.replace(
      config, train=dataclasses.replace(steps, epochs=6)
    )


@pytest.mark.parametrize('groups', ['3', '32'])
def test_groups_that_do_not_divide_are_refused(groups):
  config = whole_runs.config(f'train.norm_groups={groups}')
  with pytest.raises(config_lib.ConfigError, match='divides 16 images'):
    whole_runs.start('/nonexistent', config)


def test_a_run_that_fails_at_once_leaves_no_trace(tmp_path, whole):
  """Neither a new one, nor one that would resume with other settings."""
  config = whole_runs.config(f'data.dir={tmp_path / "none"}')
  with pytest.raises(errors.DataError):
    whole_runs.start(tmp_path / 'new', config).train()
  assert not [p for p in (tmp_path / 'new').rglob('*') if p.is_file()]
  whole_runs.cut(whole[1], tmp_path / 'old', 2)
  before = {p: p.read_bytes() for p in (tmp_path / 'old').glob('*.*')}
  assert before
  with pytest.raises(errors.DataError):
    whole_runs.start(tmp_path / 'old', config).train()
  assert before == {p: p.read_bytes() for p in (tmp_path / 'old').glob('*.*')}


@pytest.mark.once
def test_training_ends_early_and_stays_ended(tmp_path):
  config = whole_runs.config(
    'train.keep_best=top_1_accuracy',
    'train.patience=1',
    'train.eval_epochs=0.0128',  # Every two steps.
  )
  evaluated = []

  def evaluate(step):
    evaluated.append(step)
    return {'top_1_accuracy': 1 / step}

  trainer = whole_runs.start(tmp_path, config)
  trainer.train(evaluate)
  assert evaluated == [2, 4] and trainer.step == 4
  again = whole_runs.start(tmp_path, config)
  again.train(evaluate)
  assert again.step == 4
  best = checkpoints.checkpoint_paths(str(tmp_path / 'best'))
  assert [path.rsplit('-')[-1] for path in best] == ['2']
