import dataclasses
import json
import os
import re
import shutil
import time

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import execution
from efficientnet_advprop.base import errors
from efficientnet_advprop.config import recipes
from efficientnet_advprop.testing import tiny_data
from efficientnet_advprop.testing import tiny_runs
from efficientnet_advprop.training import reporting
from efficientnet_advprop.training import stopping
from efficientnet_advprop.training import trainer as trainer_lib
from efficientnet_advprop.weights import checkpoints

# Of the embedded data set, which is there whenever the code is.
_VALUES = {
  'model': tiny_runs.RESNET,
  'data': {
    'num_classes': 10,
    'num_train_images': 2500,
    'num_eval_images': 500,
    'augmentation': 'none',
  },
  'train': {
    'batch_size': 16,
    'epochs': 0.0384,  # 6 steps.
    'log_steps': 2,
    'checkpoint_steps': 2,
    'warmup_epochs': 0,
  },
}
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
_ONE = tf.distribute.OneDeviceStrategy('CPU:0')


@pytest.fixture(scope='module', autouse=True)
def _plain_layers():
  """Compiles nothing, for speed; command_line_test.py runs compiled layers."""
  with pytest.MonkeyPatch.context() as patch:
    plain = execution.Execution(layers=False, step=False)
    patch.setattr(execution, 'choose', lambda *_: plain)
    yield


def _config(*overrides):
  values = recipes.apply_overrides(_VALUES, overrides)
  return config_lib.from_dict(values)


def _state(trainer):
  """Every variable of a run: weights, statistics, average, optimizer."""
  variables = (
    *trainer.model.variables,
    *trainer.average.variables,
    *trainer.optimizer.variables,
  )
  return [variable.numpy() for variable in variables]


def _metrics(model_dir):
  with open(os.path.join(model_dir, 'metrics.jsonl'), encoding='utf-8') as file:
    lines = [json.loads(line) for line in file]
  for line in lines:
    assert line.pop('images_per_second') > 0
    assert 0 <= line.pop('input_wait') <= 1
  return lines


def _assert_same(ours, theirs):
  assert len(ours) == len(theirs) > 100
  for one, other in zip(ours, theirs):
    np.testing.assert_array_equal(one, other)


def _assert_close(ours, theirs):
  """Up to the order of sums, enlarged where few values are normalized."""
  assert len(ours) == len(theirs) > 100
  for index, (one, other) in enumerate(zip(ours, theirs)):
    scale = max(0.1, np.abs(other).max())
    assert np.abs(one - other).max() < 3e-4 * scale, index


@pytest.fixture(scope='module', name='whole')
def _whole(tmp_path_factory):
  """A run that nothing interrupted."""
  model_dir = str(tmp_path_factory.mktemp('whole'))
  evaluated = []
  trainer = trainer_lib.Trainer(_config(), _ONE, model_dir)
  trainer.train(lambda step: evaluated.append(step) or {})
  return trainer, model_dir, evaluated


def test_a_run_logs_saves_and_evaluates(whole):
  trainer, model_dir, evaluated = whole
  assert trainer.step == 6 and evaluated == [6]
  lines = _metrics(model_dir)
  assert [line['step'] for line in lines] == [2, 4, 6]
  for line in lines:
    losses = line['clean_loss'] + line['adversarial_loss']
    penalty = line['loss'] - losses
    assert 0 < penalty < 0.05 * line['loss']
  paths = checkpoints.checkpoint_paths(os.path.join(model_dir, 'checkpoints'))
  assert [path.rsplit('-')[-1] for path in paths] == ['6', '4', '2']
  assert tf.train.latest_checkpoint(os.path.join(model_dir, 'checkpoints'))


def test_the_time_left_hears_of_saves_and_evaluations(monkeypatch, tmp_path):
  """With steps and saves that only take their time."""
  trainer = trainer_lib.Trainer(_config(), _ONE, str(tmp_path))
  timing = reporting.Timing(2, 1.0)
  monkeypatch.setattr(trainer, '_interval', lambda *_: ({'loss': 1.0}, timing))
  monkeypatch.setattr(trainer, '_save', lambda step: time.sleep(0.02))
  spent = []
  monkeypatch.setattr(
    reporting.Reporter, 'spent', lambda self, *found: spent.append(found)
  )
  trainer.train(lambda step: time.sleep(0.04) or {})
  assert [what for what, _ in spent] == ['save', 'save', 'save', 'evaluate']
  for what, seconds in spent:
    assert 0 <= seconds - {'save': 0.02, 'evaluate': 0.04}[what] < 2


def test_the_first_update_of_the_average_is_the_official_one(tmp_path):
  """2/11 of what the run began with; 1/10 in runs of earlier versions."""
  for first_update, left in ((None, 2 / 11), (0, 1 / 10)):
    config = _config('train.epochs=0.0064', 'train.learning_rate=1')
    model_dir = tmp_path / str(first_update)
    trainer = trainer_lib.Trainer(config, _ONE, str(model_dir))
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
def test_a_run_of_an_earlier_version_keeps_its_average(whole, tmp_path):
  """Such a run has no word about the average in its layout.json."""
  old = trainer_lib.Trainer(_config(), _ONE, str(tmp_path / 'old'))
  old._first_update = 0
  old.train()
  (tmp_path / 'old' / 'layout.json').write_text('{"replicas": 1, "hosts": 1}')
  _cut(tmp_path / 'old', tmp_path / 'cut', 2)
  resumed = trainer_lib.Trainer(_config(), _ONE, str(tmp_path / 'cut'))
  resumed.train()
  _assert_same(_state(resumed), _state(old))
  new, _, _ = whole
  kernels = [run.average.stem.kernel.numpy() for run in (new, old)]
  assert (kernels[0] != kernels[1]).any()


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(whole, tmp_path):
  trainer, model_dir, _ = whole
  first = trainer_lib.Trainer(_config(), _ONE, str(tmp_path))
  interval = first._interval

  def stop_in_the_midst(run_steps, iterator, start, end):
    if start == 2:
      first._stopper.request()
    return interval(run_steps, iterator, start, end)

  first._interval = stop_in_the_midst
  with pytest.raises(stopping.StoppedError):
    first.train()
  # As after a kill: a line of a step that was not saved, and half a line.
  with open(tmp_path / 'metrics.jsonl', 'a', encoding='utf-8') as file:
    file.write('{"step": 6}\n{"step": ')
  second = trainer_lib.Trainer(_config(), _ONE, str(tmp_path))
  assert second.step == 4
  second.train()
  _assert_same(_state(second), _state(trainer))
  assert _metrics(tmp_path) == _metrics(model_dir)


def _cut(whole_dir, model_dir, step):
  """Copies a run as if it had been killed behind a checkpoint."""
  shutil.copytree(whole_dir, model_dir, dirs_exist_ok=True)
  folder = model_dir / 'checkpoints'
  for path in folder.glob('ckpt-*'):
    if int(re.match(r'ckpt-(\d+)', path.name)[1]) > step:
      path.unlink()
  (folder / 'checkpoint').write_text('')  # Of no use; the folder is listed.


@pytest.mark.once
def test_a_damaged_checkpoint_gives_way_to_the_one_before(whole, tmp_path):
  trainer, model_dir, _ = whole
  _cut(model_dir, tmp_path, 6)
  data = tmp_path / 'checkpoints' / 'ckpt-6.data-00000-of-00001'
  data.write_bytes(data.read_bytes()[:1000])
  second = trainer_lib.Trainer(_config(), _ONE, str(tmp_path))
  assert second.step == 4
  second.train()
  _assert_same(_state(second), _state(trainer))


def test_another_network_s_checkpoints_are_refused(whole):
  _, model_dir, _ = whole
  config = _config('model.width_coefficient=0.5')
  with pytest.raises(errors.CheckpointError, match='another model'):
    trainer_lib.Trainer(config, _ONE, model_dir)


@pytest.mark.once
@pytest.mark.parametrize('overrides', [_EFFICIENTNET, _FAST_STEP])
def test_two_replicas_equal_one_device(two_replicas, tmp_path, overrides):
  """On the same global batches: norms, losses, attack, update and average."""
  assert two_replicas.num_replicas_in_sync == 2
  runs = []
  for strategy in (_ONE, two_replicas):
    model_dir = str(tmp_path / str(len(runs)))
    trainer = trainer_lib.Trainer(_config(*overrides), strategy, model_dir)
    trainer.train()
    runs.append((_metrics(model_dir), _state(trainer)))
  (metrics, state), (metrics_of_one, state_of_one) = runs[::-1]
  for ours, theirs in zip(metrics, metrics_of_one):
    assert ours == pytest.approx(theirs, rel=1e-4)
  _assert_close(state, state_of_one)


@pytest.mark.parametrize(
  'method, overrides, losses',
  [
    ('pretrain_finetune', (), ['main']),
    pytest.param(
      'fine_grained',
      (
        'data.augmentation=randaugment',
        'train.domains.strong.attack.epsilon=4',
      ),
      ['clean', 'augmented', 'adversarial', 'strong'],
      marks=pytest.mark.once,
    ),
    (
      'fast_advprop',
      (*_FAST, 'data.mixup_alpha=0.2', 'data.cutmix_alpha=1'),
      ['clean', 'noise', 'adversarial'],
    ),
    pytest.param(
      'advprop',
      (
        'train.optimizer=adamw',
        'train.schedule=cosine',
        'train.clip_norm=1',
        'train.auxiliary_weight=0.5',
        'data.mixup_alpha=0.2',
      ),
      ['clean', 'adversarial'],
      marks=pytest.mark.once,
    ),
  ],
)
def test_every_kind_of_method_trains_and_resumes(
  tmp_path, method, overrides, losses
):
  config = _config(f'train.method={method}', 'train.optimizer=sgd', *overrides)
  whole = trainer_lib.Trainer(config, _ONE, str(tmp_path / 'whole'))
  whole.train()
  _cut(tmp_path / 'whole', tmp_path / 'cut', 2)
  resumed = trainer_lib.Trainer(config, _ONE, str(tmp_path / 'cut'))
  assert resumed.step == 2
  resumed.train()
  _assert_same(_state(resumed), _state(whole))
  lines = _metrics(tmp_path / 'cut')
  assert lines == _metrics(tmp_path / 'whole') and len(lines) == 3
  found = [key for key in lines[0] if key.endswith('_loss')]
  assert found == [f'{name}_loss' for name in losses]


@pytest.mark.slow
@pytest.mark.parametrize('replicas', [1, 2])
def test_float16_skips_steps_counts_them_and_resumes_to_the_same_bits(
  tmp_path, two_replicas, replicas
):
  """The first steps overflow, so that the scale falls before the cut."""
  strategy = two_replicas if replicas == 2 else _ONE
  config = _config(
    'train.precision=mixed_float16', 'train.accumulation_steps=2'
  )
  whole = trainer_lib.Trainer(config, strategy, str(tmp_path / 'whole'))
  # So large that some steps overflow for certain.
  whole.optimizer._loss_scale.current_loss_scale.assign(2.0**34)
  whole.train()
  lines = _metrics(tmp_path / 'whole')
  assert lines[0]['skipped_steps'] == 2
  assert lines[0]['loss_scale'] == 2.0**32
  assert [line['step'] for line in lines] == [2, 4, 6]
  _cut(tmp_path / 'whole', tmp_path / 'cut', 2)
  resumed = trainer_lib.Trainer(config, strategy, str(tmp_path / 'cut'))
  assert resumed.step == 2
  assert float(resumed.optimizer.loss_scale) == 2.0**32
  resumed.train()
  _assert_same(_state(resumed), _state(whole))
  assert _metrics(tmp_path / 'cut') == lines
  scales = [run.optimizer.loss_scale.numpy() for run in (resumed, whole)]
  assert scales[0] == scales[1]
  assert whole.average.stem.compute_dtype == 'float32'


@pytest.mark.slow
def test_float16_ends_when_no_scale_helps(tmp_path):
  config = _config('train.precision=mixed_float16', 'train.loss_weight=1000')
  trainer = trainer_lib.Trainer(config, _ONE, str(tmp_path))
  trainer.optimizer._loss_scale.current_loss_scale.assign(1.0)
  kernel = trainer.model.classifier.kernel
  kernel.assign(kernel * 1e6)
  cause = _cause(trainer)
  assert cause.startswith('step 1: gradients of the loss without a scale not')
  assert 'train.precision=mixed_bfloat16' in cause


def test_a_batch_that_does_not_divide_is_refused():
  config = _config('train.accumulation_steps=3')
  with pytest.raises(config_lib.ConfigError, match='a multiple of 3'):
    trainer_lib.Trainer(config, _ONE, '/nonexistent')


def _cause(trainer):
  """The line that a run ends with."""
  with pytest.raises(errors.TrainingError) as caught:
    trainer.train()
  assert '\n' not in str(caught.value)
  return str(caught.value)


@pytest.mark.once
def test_losses_that_are_not_finite_stop_the_run(tmp_path):
  """The first update breaks the weights, the second step's losses tell."""
  config = _config('train.learning_rate=1e30', 'train.weight_decay=0')
  cause = _cause(trainer_lib.Trainer(config, _ONE, str(tmp_path)))
  assert cause.startswith('step 2: clean_loss and adversarial_loss not finite')
  assert 'learning rate 6.25e+28' in cause and 'no checkpoint yet' in cause
  assert not checkpoints.checkpoint_paths(str(tmp_path / 'checkpoints'))


@pytest.mark.once
def test_weights_that_are_not_finite_are_not_saved(whole, tmp_path):
  """Step 4's update breaks them: its own losses do not know yet."""
  trainer, model_dir, _ = whole
  _cut(model_dir, tmp_path, 2)
  broken = trainer_lib.Trainer(_config(), _ONE, str(tmp_path))
  interval = broken._interval

  def spoil(run_steps, iterator, start, end):
    result = interval(run_steps, iterator, start, end)
    if end == 4:
      kernel = broken.model.stem.kernel
      kernel.assign(kernel * float('inf'))
    return result

  broken._interval = spoil
  cause = _cause(broken)
  assert cause.startswith('step 4: its update has left weights')
  assert 'stem' in cause and 'the checkpoint of step 2 is intact' in cause
  again = trainer_lib.Trainer(_config(), _ONE, str(tmp_path))
  assert again.step == 2
  again.train()
  _assert_same(_state(again), _state(trainer))


@pytest.mark.once
def test_another_number_of_replicas_is_told(
  whole, two_replicas, tmp_path, caplog
):
  """One device begins, two replicas end: the same but for the order of sums."""
  whole_run, model_dir, _ = whole
  _cut(model_dir, tmp_path, 2)
  two = trainer_lib.Trainer(_config(), two_replicas, str(tmp_path))
  with caplog.at_level('WARNING', 'absl'):
    two.train()
  assert 'began on 1 replica(s) of 1 host(s) and resumes on 2' in caplog.text
  for ours, theirs in zip(_metrics(tmp_path), _metrics(model_dir)):
    assert ours == pytest.approx(theirs, rel=1e-4)
  _assert_close(_state(two), _state(whole_run))


def test_the_picture_is_drawn(whole):
  trainer, model_dir, _ = whole
  path = trainer.draw_attack(2)
  assert path == os.path.join(model_dir, 'attack.png')
  pixels = tf.io.decode_png(tf.io.read_file(path))
  assert pixels.shape == (16 + 2 * 114, 3 * 100 + 4, 3)


def test_a_run_starts_from_another_one_unless_it_resumes(whole, tmp_path):
  source, model_dir, _ = whole
  config = _config(f'train.init_checkpoint={model_dir}', 'data.num_classes=12')
  first = trainer_lib.Trainer(config, _ONE, str(tmp_path))
  assert first.step == 0 and first.restored is None
  for network in (first.model, first.average):
    _assert_same(network.variables[:-2], source.average.variables[:-2])
  first._manager.save(0)
  first.model.stem.kernel.assign_add(tf.ones_like(first.model.stem.kernel))
  first._manager.save(1)
  second = trainer_lib.Trainer(config, _ONE, str(tmp_path))
  assert second.restored
  _assert_same(second.model.variables, first.model.variables)


def test_a_run_lists_its_training_images_once(two_replicas, tmp_path):
  """Also where it is resumed on other replicas."""
  directory = str(tmp_path / 'data')
  tiny_data.write_class_folders(directory, {'train': 20}, 10)
  config = _config(f'data.dir={directory}', 'data.num_train_images=20')
  steps = dataclasses.replace(config.train, epochs=5, batch_size=4)
  config = dataclasses.replace(config, train=steps)
  model_dir = str(tmp_path / 'run')
  for strategy in _ONE, two_replicas:
    with tiny_data.counting_listings() as counts:
      trainer_lib.Trainer(config, strategy, model_dir).train()
    assert counts[os.path.join(directory, 'train', 'class_0')] == 1
    config = dataclasses.replace(
      config, train=dataclasses.replace(steps, epochs=6)
    )


@pytest.mark.parametrize('groups', ['3', '32'])
def test_groups_that_do_not_divide_are_refused(groups):
  config = _config(f'train.norm_groups={groups}')
  with pytest.raises(config_lib.ConfigError, match='divides 16 images'):
    trainer_lib.Trainer(config, _ONE, '/nonexistent')


def test_a_run_that_fails_at_once_leaves_no_trace(tmp_path, whole):
  """Neither a new one, nor one that would resume with other settings."""
  config = _config(f'data.dir={tmp_path / "none"}')
  with pytest.raises(errors.DataError):
    trainer_lib.Trainer(config, _ONE, str(tmp_path / 'new')).train()
  assert not [p for p in (tmp_path / 'new').rglob('*') if p.is_file()]
  _cut(whole[1], tmp_path / 'old', 2)
  before = {p: p.read_bytes() for p in (tmp_path / 'old').glob('*.*')}
  assert before
  with pytest.raises(errors.DataError):
    trainer_lib.Trainer(config, _ONE, str(tmp_path / 'old')).train()
  assert before == {p: p.read_bytes() for p in (tmp_path / 'old').glob('*.*')}


def test_a_run_that_resumes_keeps_the_settings_before(tmp_path, whole):
  _cut(whole[1], tmp_path, 2)
  config = _config('train.learning_rate=0.01')
  trainer_lib.Trainer(config, _ONE, str(tmp_path)).train()
  earlier = tmp_path / 'config-until-step-2.yaml'
  assert config_lib.load_config(str(earlier)) == _config()
  saved = config_lib.load_config(str(tmp_path / 'config.yaml'))
  assert saved == config


def test_training_ends_early_and_stays_ended(tmp_path):
  config = _config(
    'train.keep_best=top_1_accuracy',
    'train.patience=1',
    'train.eval_epochs=0.0128',  # Every two steps.
  )
  evaluated = []

  def evaluate(step):
    evaluated.append(step)
    return {'top_1_accuracy': 1 / step}

  trainer = trainer_lib.Trainer(config, _ONE, str(tmp_path))
  trainer.train(evaluate)
  assert evaluated == [2, 4] and trainer.step == 4
  again = trainer_lib.Trainer(config, _ONE, str(tmp_path))
  again.train(evaluate)
  assert again.step == 4
  best = checkpoints.checkpoint_paths(str(tmp_path / 'best'))
  assert [path.rsplit('-')[-1] for path in best] == ['2']
