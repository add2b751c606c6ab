import json

import pytest

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.evaluation import corruption_error
from efficientnet_advprop.evaluation import corruptions
from efficientnet_advprop.evaluation import image_sets
from efficientnet_advprop.evaluation import session as runner_lib
from efficientnet_advprop.testing import tiny_data


class _Judge:
  """Finds another accuracy at each call, and may be killed at one."""

  def __init__(self):
    self.calls, self.killed_at = 0, None

  def evaluate(self, test, report, images=None):
    if self.calls == self.killed_at:
      raise KeyboardInterrupt
    self.calls += 1
    report(5, 10)
    return {
      'num_examples': 10,
      'loss': 1.5,
      'top_1_accuracy': self.calls / 1000,
      'top_5_accuracy': 0.9,
      'domain': 'main',
    }


@pytest.fixture(name='judge')
def _judge():
  return _Judge()


@pytest.fixture(name='shown')
def _shown():
  return []


@pytest.fixture(name='runner')
def _runner(judge, shown, tmp_path, monkeypatch):
  def find_corrupted(config, test, directory):
    return {
      (name, severity): lambda: None
      for name in corruptions.NAMES
      for severity in corruptions.SEVERITIES
    }

  monkeypatch.setattr(image_sets, 'find_corrupted', find_corrupted)
  return runner_lib.Runner(
    judge,
    tiny_data.config(tmp_path),
    str(tmp_path / 'run'),
    {'step': 7, 'weights': 'ema'},
    lambda what: lambda done, total: shown.append((what, done, total)),
  )


def _read(tmp_path, name):
  return json.loads((tmp_path / 'run' / 'evals' / f'{name}.json').read_text())


def test_a_finished_test_is_not_repeated(runner, judge, tmp_path):
  test = config_lib.TestConfig()
  first = runner.named('x', test, 'one')
  assert first == _read(tmp_path, 'x')
  assert (first['step'], first['weights']) == (7, 'ema')
  assert runner.named('x', test, 'one') == first and judge.calls == 1
  # Other weights at the same step, and other settings.
  assert runner.named('x', test, 'two')['top_1_accuracy'] == 0.002
  attacked = config_lib.TestConfig(attack=config_lib.TestAttackConfig())
  assert runner.named('x', attacked, 'two')['top_1_accuracy'] == 0.003
  assert runner.named('x', attacked, 'two') == _read(tmp_path, 'x')
  path = tmp_path / 'run' / 'evals' / 'x.json'
  path.write_text('{"step": 7, ')  # As a full disk may leave it.
  runner.named('x', attacked, 'two')
  assert judge.calls == 4


def test_the_plain_test_is_always_run(runner, judge, tmp_path):
  runner.plain()
  assert runner.plain()['top_1_accuracy'] == 0.002
  found = json.loads((tmp_path / 'run' / 'eval.json').read_text())
  assert set(found) == {
    *('step', 'num_examples', 'loss', 'top_1_accuracy', 'top_5_accuracy'),
    *('domain', 'weights'),
  }


def test_a_killed_corrupted_set_goes_on(runner, judge, shown, tmp_path):
  test = config_lib.TestConfig(kind='imagenet_c', dir='/c')
  judge.killed_at = 40
  with pytest.raises(KeyboardInterrupt):
    runner.named('c', test, 'one')
  evals = tmp_path / 'run' / 'evals'
  assert [path.name for path in evals.iterdir()] == ['c.part.json']
  assert 'mean_corruption_error' not in (evals / 'c.part.json').read_text()
  judge.killed_at = None
  shown.clear()
  result = runner.named('c', test, 'one')
  assert judge.calls == 75
  assert shown[0] == ('evaluating c', 5, 350)
  assert shown[-1] == ('evaluating c', 345, 350)
  assert [path.name for path in evals.iterdir()] == ['c.json']
  errors = {
    name: {s: 1 - (5 * i + s) / 1000 for s in corruptions.SEVERITIES}
    for i, name in enumerate(corruptions.NAMES)
  }
  assert result['num_examples'] == 750
  assert result['mean_corruption_error'] == pytest.approx(
    corruption_error.mean_corruption_error(errors), abs=1e-12
  )
  assert result['errors']['fog']['3'] == pytest.approx(errors['fog'][3])
  assert runner.named('c', test, 'one') == result and judge.calls == 75


def test_a_part_of_other_weights_is_not_taken(runner, judge):
  test = config_lib.TestConfig(kind='corruptions', dir='/c')
  judge.killed_at = 40
  with pytest.raises(KeyboardInterrupt):
    runner.named('c', test, 'one')
  judge.killed_at = None
  result = runner.named('c', test, 'two')
  assert judge.calls == 40 + 75
  # AlexNet has no figures for it.
  assert 'mean_corruption_error' not in result
  mean = sum(41 + n for n in range(75)) / 75 / 1000
  assert result['unnormalized_mean_error'] == pytest.approx(1 - mean)
  assert result['top_1_accuracy'] == pytest.approx(mean)


def test_a_corrupted_set_is_made_once(runner, judge, tmp_path, monkeypatch):
  made = []
  monkeypatch.setattr(
    corruptions,
    'write_corrupted',
    lambda config, directory, **kwargs: made.append((directory, kwargs)),
  )
  test = config_lib.TestConfig(kind='corruptions', num_images=3)
  runner.named('c', test, 'one')
  ((directory, settings),) = made
  assert directory == str(tmp_path / 'run' / 'corrupted' / 'c')
  assert settings['num_images'] == 3


def test_what_is_wrong_with_a_set_ends_the_test(runner, monkeypatch):
  def find_corrupted(*_):
    raise errors.DataError('/c: the corruption snow is missing')

  monkeypatch.setattr(image_sets, 'find_corrupted', find_corrupted)
  test = config_lib.TestConfig(kind='imagenet_c', dir='/c')
  with pytest.raises(errors.DataError, match='snow is missing'):
    runner.named('c', test, 'one')
