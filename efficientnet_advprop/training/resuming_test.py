import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.config import recipes
from efficientnet_advprop.data import records
from efficientnet_advprop.testing import whole_runs
from efficientnet_advprop.training import host_loop
from efficientnet_advprop.training import resuming
from efficientnet_advprop.training import stopping


def _config(*overrides):
  values = {
    'data': {
      'num_classes': 10,
      'num_train_images': 2500,
      'num_eval_images': 500,
    },
    'train': {'batch_size': 16},
  }
  return config_lib.from_dict(recipes.apply_overrides(values, overrides))


def _source():
  return records.Source('train', ('train-00000-of-00001',), 10, 2500)


def _context(replicas, hosts):
  return tf.distribute.InputContext(hosts, 0, replicas)


def _check(directory, began, here, caplog, *overrides):
  """What the log says when a run resumes elsewhere."""
  resuming.record_layout(_context(*began), str(directory))
  with caplog.at_level('WARNING', 'absl'):
    resuming.check_layout(
      _config(*overrides), _source(), _context(*here), str(directory)
    )
  return caplog.text


def test_the_same_place_is_not_worth_a_word(tmp_path, caplog):
  overrides = 'train.accumulation_steps=2', 'data.max_bad_records=1'
  assert not _check(tmp_path, (4, 2), (4, 2), caplog, *overrides)
  path = str(tmp_path / 'earlier_version')
  resuming.check_layout(_config(), _source(), _context(1, 1), path)


def test_another_place_is_said(tmp_path, caplog):
  """All hosts share one order of so few images."""
  text = _check(tmp_path, (1, 1), (4, 2), caplog)
  assert 'began on 1 replica(s) of 1 host(s) and resumes on 4' in text


def test_the_average_of_an_older_run_keeps_its_rule(tmp_path):
  """Its layout.json says nothing of it, or is not there."""
  assert resuming.first_update(str(tmp_path), 0) == 1
  assert resuming.first_update(str(tmp_path), 40) == 0
  path = tmp_path / 'layout.json'
  path.write_text('{"replicas": 1, "hosts": 1}')
  assert resuming.first_update(str(tmp_path), 40) == 0
  resuming.record_layout(_context(1, 1), str(tmp_path))
  assert resuming.first_update(str(tmp_path), 40) == 1


@pytest.mark.parametrize(
  'here, override, reason',
  [
    ((2, 1), 'train.accumulation_steps=2', 'train.accumulation_steps'),
    ((2, 1), 'data.max_bad_records=1', 'max_bad_records'),
    ((1, 2), 'data.shuffle_window=100', 'files of its own'),
  ],
)
def test_another_place_is_refused_where_it_would_change_the_run(
  tmp_path, caplog, here, override, reason
):
  with pytest.raises(config_lib.ConfigError, match=reason) as caught:
    _check(tmp_path, (1, 1), here, caplog, override)
  line = str(caught.value)
  assert line.startswith('strategy: got ') and '\n' not in line
  assert 'allowed: 1 replica(s) of 1 host(s)' in line


def test_more_replicas_of_one_host_share_its_files(tmp_path, caplog):
  text = _check(tmp_path, (1, 1), (2, 1), caplog, 'data.shuffle_window=100')
  assert 'resumes on 2' in text


def test_every_stretch_keeps_its_settings(tmp_path):
  """A run of two stretches; a third that left no checkpoint; a new start."""
  first, second, third = (
    _config(f'train.learning_rate={rate}') for rate in (0.1, 0.2, 0.3)
  )
  path, earlier = tmp_path / 'config.yaml', 'config-until-step-40.yaml'
  resuming.record_settings(first, str(tmp_path), 0)
  resuming.record_settings(first, str(tmp_path), 20)
  assert [file.name for file in tmp_path.iterdir()] == ['config.yaml']
  resuming.record_settings(second, str(tmp_path), 40)
  resuming.record_settings(third, str(tmp_path), 40)
  assert config_lib.load_config(str(path)) == third
  assert config_lib.load_config(str(tmp_path / earlier)) == first
  assert path.read_text().startswith('# Since step 40, on ')
  assert earlier in path.read_text().splitlines()[0]


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(
  whole, monkeypatch, tmp_path
):
  trainer, model_dir, _ = whole
  first = whole_runs.start(tmp_path)
  run = host_loop.HostLoop.run

  def stop_in_the_midst(loop, batches, start, *others):
    if start == 2:
      first._stopper.request()
    return run(loop, batches, start, *others)

  with monkeypatch.context() as patch:
    patch.setattr(host_loop.HostLoop, 'run', stop_in_the_midst)
    with pytest.raises(stopping.StoppedError):
      first.train()
  # As after a kill: a line of a step that was not saved, and half a line.
  with open(tmp_path / 'metrics.jsonl', 'a', encoding='utf-8') as file:
    file.write('{"step": 6}\n{"step": ')
  second = whole_runs.start(tmp_path)
  assert second.step == 4
  second.train()
  whole_runs.assert_same(whole_runs.state(second), whole_runs.state(trainer))
  assert whole_runs.metrics(tmp_path) == whole_runs.metrics(model_dir)


@pytest.mark.once
def test_a_run_of_an_earlier_version_keeps_its_average(whole, tmp_path):
  """Such a run has no word about the average in its layout.json."""
  old = whole_runs.start(tmp_path / 'old')
  old._first_update = 0
  old.train()
  (tmp_path / 'old' / 'layout.json').write_text('{"replicas": 1, "hosts": 1}')
  whole_runs.cut(tmp_path / 'old', tmp_path / 'cut', 2)
  resumed = whole_runs.start(tmp_path / 'cut')
  resumed.train()
  whole_runs.assert_same(whole_runs.state(resumed), whole_runs.state(old))
  new, _, _ = whole
  kernels = [run.average.stem.kernel.numpy() for run in (new, old)]
  assert (kernels[0] != kernels[1]).any()


@pytest.mark.once
def test_a_damaged_checkpoint_gives_way_to_the_one_before(whole, tmp_path):
  trainer, model_dir, _ = whole
  whole_runs.cut(model_dir, tmp_path, 6)
  data = tmp_path / 'checkpoints' / 'ckpt-6.data-00000-of-00001'
  data.write_bytes(data.read_bytes()[:1000])
  second = whole_runs.start(tmp_path)
  assert second.step == 4
  second.train()
  whole_runs.assert_same(whole_runs.state(second), whole_runs.state(trainer))


def test_another_network_s_checkpoints_are_refused(whole):
  _, model_dir, _ = whole
  config = whole_runs.config('model.width_coefficient=0.5')
  with pytest.raises(errors.CheckpointError, match='another model'):
    whole_runs.start(model_dir, config)


@pytest.mark.once
def test_another_number_of_replicas_is_told(
  whole, two_replicas, tmp_path, caplog
):
  """One device begins, two replicas end: the same but for the order of sums."""
  whole_run, model_dir, _ = whole
  whole_runs.cut(model_dir, tmp_path, 2)
  two = whole_runs.start(tmp_path, whole_runs.config(), two_replicas)
  with caplog.at_level('WARNING', 'absl'):
    two.train()
  assert 'began on 1 replica(s) of 1 host(s) and resumes on 2' in caplog.text
  for ours, theirs in zip(
    whole_runs.metrics(tmp_path), whole_runs.metrics(model_dir)
  ):
    assert ours == pytest.approx(theirs, rel=1e-4)
  whole_runs.assert_close(whole_runs.state(two), whole_runs.state(whole_run))


@pytest.mark.once
def test_a_run_that_resumes_keeps_the_settings_before(tmp_path, whole):
  whole_runs.cut(whole[1], tmp_path, 2)
  config = whole_runs.config('train.learning_rate=0.01')
  whole_runs.start(tmp_path, config).train()
  earlier = tmp_path / 'config-until-step-2.yaml'
  assert config_lib.load_config(str(earlier)) == whole_runs.config()
  saved = config_lib.load_config(str(tmp_path / 'config.yaml'))
  assert saved == config
