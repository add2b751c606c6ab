import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.config import recipes
from efficientnet_advprop.data import records
from efficientnet_advprop.training import resuming


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
