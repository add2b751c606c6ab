import dataclasses
import json

import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import progress
from efficientnet_advprop.evaluation import corrupted_sets
from efficientnet_advprop.evaluation import corruption_error
from efficientnet_advprop.evaluation import corruptions
from efficientnet_advprop.evaluation import evaluator as evaluator_lib
from efficientnet_advprop.evaluation import image_sets
from efficientnet_advprop.evaluation import session as session_lib
from efficientnet_advprop.testing import tiny_data


class _Evaluator:
  """Finds another accuracy at each call, and may be killed at one."""

  def __init__(self):
    self.calls, self.killed_at = 0, None

  def evaluate(self, test, report, images=None, answers=None):
    if self.calls == self.killed_at:
      raise KeyboardInterrupt
    self.calls += 1
    report(5, 10)
    if answers is not None:
      answers.append(None)
    return {
      'num_examples': 10,
      'loss': 1.5,
      'top_1_accuracy': self.calls / 1000,
      'top_5_accuracy': 0.9,
      'domain': 'main',
    }


@pytest.fixture(name='evaluator')
def _evaluator():
  return _Evaluator()


@pytest.fixture(name='shown')
def _shown():
  return []


@pytest.fixture(name='session')
def _session(evaluator, shown, tmp_path, monkeypatch):
  def find_corrupted(config, test, directory):
    return {
      (name, severity): lambda: None
      for name in corruptions.NAMES
      for severity in corruptions.SEVERITIES
    }

  monkeypatch.setattr(image_sets, 'find_corrupted', find_corrupted)
  monkeypatch.setattr(
    progress,
    'Progress',
    lambda what: lambda done, total: shown.append((what, done, total)),
  )
  monkeypatch.setattr(evaluator_lib, 'Evaluator', lambda *_: evaluator)
  return session_lib.Session(
    tiny_data.config(tmp_path),
    tf.distribute.OneDeviceStrategy('CPU:0'),
    None,
    str(tmp_path / 'run'),
  )


def _read(tmp_path, name):
  return json.loads((tmp_path / 'run' / 'evals' / f'{name}.json').read_text())


def test_a_finished_test_is_not_repeated(session, evaluator, tmp_path):
  test = config_lib.NamedTestConfig()
  first = session.run_test('x', test, 7, 'one')
  assert first == _read(tmp_path, 'x')
  assert (first['step'], first['weights']) == (7, 'ema')
  assert session.run_test('x', test, 7, 'one') == first and evaluator.calls == 1
  # Other weights at the same step, and other settings.
  assert session.run_test('x', test, 7, 'two')['top_1_accuracy'] == 0.002
  attacked = config_lib.NamedTestConfig(attack=config_lib.EvalAttackConfig())
  assert session.run_test('x', attacked, 7, 'two')['top_1_accuracy'] == 0.003
  assert session.run_test('x', attacked, 7, 'two') == _read(tmp_path, 'x')
  path = tmp_path / 'run' / 'evals' / 'x.json'
  path.write_text('{"step": 7, ')  # As a full disk may leave it.
  session.run_test('x', attacked, 7, 'two')
  assert evaluator.calls == 4


def test_the_plain_test_is_always_run(session, evaluator, tmp_path):
  session.run_plain(7)
  assert session.run_plain(7)['top_1_accuracy'] == 0.002
  found = json.loads((tmp_path / 'run' / 'eval.json').read_text())
  assert set(found) == {
    *('step', 'num_examples', 'loss', 'top_1_accuracy', 'top_5_accuracy'),
    *('domain', 'weights'),
  }


def test_a_killed_corrupted_set_is_resumed(session, evaluator, shown, tmp_path):
  test = config_lib.NamedTestConfig(kind='imagenet_c', dir='/c')
  evaluator.killed_at = 40
  with pytest.raises(KeyboardInterrupt):
    session.run_test('c', test, 7, 'one')
  evals = tmp_path / 'run' / 'evals'
  assert [path.name for path in evals.iterdir()] == ['c.part.json']
  assert 'mean_corruption_error' not in (evals / 'c.part.json').read_text()
  evaluator.killed_at = None
  shown.clear()
  result = session.run_test('c', test, 7, 'one')
  assert evaluator.calls == 75
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
  assert (
    session.run_test('c', test, 7, 'one') == result and evaluator.calls == 75
  )


def test_a_part_of_other_weights_is_not_taken(session, evaluator):
  test = config_lib.NamedTestConfig(kind='corruptions', dir='/c')
  evaluator.killed_at = 40
  with pytest.raises(KeyboardInterrupt):
    session.run_test('c', test, 7, 'one')
  evaluator.killed_at = None
  result = session.run_test('c', test, 7, 'two')
  assert evaluator.calls == 40 + 75
  # AlexNet has no figures for it.
  assert 'mean_corruption_error' not in result
  mean = sum(41 + n for n in range(75)) / 75 / 1000
  assert result['unnormalized_mean_error'] == pytest.approx(1 - mean)
  assert result['top_1_accuracy'] == pytest.approx(mean)


def test_a_corrupted_set_is_made_once(
  session, evaluator, tmp_path, monkeypatch
):
  made = []
  monkeypatch.setattr(
    corrupted_sets,
    'write',
    lambda config, directory, **kwargs: made.append((directory, kwargs)),
  )
  test = config_lib.NamedTestConfig(kind='corruptions', num_images=3)
  session.run_test('c', test, 7, 'one')
  ((directory, settings),) = made
  assert directory == str(tmp_path / 'run' / 'corrupted' / 'c-cifar_c')
  assert settings['num_images'] == 3


def test_what_is_wrong_with_a_set_ends_the_test(session, monkeypatch):
  def find_corrupted(*_):
    raise errors.DataError('/c: the corruption snow is missing')

  monkeypatch.setattr(image_sets, 'find_corrupted', find_corrupted)
  test = config_lib.NamedTestConfig(kind='imagenet_c', dir='/c')
  with pytest.raises(errors.DataError, match='snow is missing'):
    session.run_test('c', test, 7, 'one')


def _session_of(tests, tmp_path, folder='run'):
  """A session on 7 images of the split `validation` and none of others."""
  data = tmp_path / 'data'
  data.mkdir()
  tiny_data.write_split(data, 'validation', [7])
  config = tiny_data.config(data)
  tests = {k: config_lib.NamedTestConfig(**v) for k, v in tests.items()}
  changed = dataclasses.replace(config.eval, tests=tests)

  def network(images, training, domain):
    return tf.one_hot(tf.zeros(images.shape[0], tf.int32), 3)

  return session_lib.Session(
    dataclasses.replace(config, eval=changed),
    tf.distribute.OneDeviceStrategy('CPU:0'),
    network,
    f'{tmp_path}/{folder}',
  )


def test_a_failing_test_keeps_no_other_from_running(tmp_path, caplog):
  tests = {'lost': {'split': 'stylized'}, 'there': {'split': 'validation'}}
  session = _session_of(tests, tmp_path)
  session.run_plain(3)
  session.run_named(3, 'one')
  assert list(session.failures) == ['lost']
  assert "no images of the split 'stylized'" in session.failures['lost']
  assert 'The test lost failed: ' in caplog.text
  assert [line.split()[0] for line in session.table().splitlines()[2:]] == [
    'main',
    'there',
  ]
  with open(session.report_path, encoding='utf-8') as file:
    text = file.read()
  assert '## Tests of run that failed' in text and '- lost: ' in text
  assert sorted(p.name for p in (tmp_path / 'run' / 'evals').iterdir()) == [
    *('classes.csv', 'mistakes.png', 'report.md', 'there.json'),
  ]
  # Three images are of each class but the first, whose answer is always given.
  assert '| 1 | 2 | 0.00 |' in text and '| 0 | 3 | 100.00 |' in text
  assert '| 1 | 0 | 2 | 100.00 |' in text
  assert 'top-5' not in session.table()


@pytest.mark.parametrize(
  'test, words',
  [
    ({'split': 'stylized'}, "no images of the split 'stylized'"),
    ({'cue': 'texture'}, 'image/texture/label is missing or not in 1..3'),
    ({'kind': 'corruptions', 'dir': '/nowhere'}, '/nowhere: no such folder'),
    ({'kind': 'corruptions'}, 'model.image_size: got 8; allowed: at least 32'),
    ({'num_images': 6}, "'validation' holds 7 images, not 6"),
  ],
)
def test_a_test_without_images_is_named_before_training(tmp_path, test, words):
  session = _session_of({'odd': test, 'fine': {}}, tmp_path)
  with pytest.raises(errors.DataError) as error:
    session.check_tests()
  message = str(error.value)
  assert message.startswith("test 'odd': ") and words in message
  assert message.endswith('; eval.tests.odd=null leaves it out')
  assert '\n' not in message


def test_a_remote_run_cannot_make_a_corrupted_set(tmp_path, monkeypatch):
  monkeypatch.setattr(image_sets, 'check_corrupted', lambda *_: None)
  tests = {'c': {'kind': 'corruptions'}}
  session = _session_of(tests, tmp_path, folder='gs://bucket')
  with pytest.raises(errors.DataError, match=r'tools/corrupt\.py'):
    session.check_tests()
