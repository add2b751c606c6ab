import pytest
import yaml

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import paths
from tools.suites import suite as suite_lib


def _values():
  return {
    'name': 'small',
    'splits': {'train': 100, 'validation': None},
    'corrupted_images': 10,
    'run': {'data': {'num_train_images': 100}, 'train': {'batch_size': 10}},
    'stages': [
      {'seeds': 2, 'cells': {'a': None, 'b': {'attack': {'epsilon': 4}}}},
      {'seeds': 1, 'cells': {'c': {'train': {'method': 'vanilla'}}}},
    ],
    'claims': [{'claim': 'b is better', 'is_positive': 'b.clean - a.clean'}],
  }


def _load(tmp_path, values):
  path = tmp_path / 'suite.yaml'
  path.write_text(yaml.safe_dump(values))
  return suite_lib.load(str(path))


def test_runs_go_stage_by_stage_and_seed_by_seed(tmp_path):
  suite = _load(tmp_path, _values())
  order = [(run.cell, run.seed) for run in suite.runs]
  assert order == [('a', 0), ('b', 0), ('a', 1), ('b', 1), ('c', 0)]
  assert suite.cells == ('a', 'b', 'c')
  run = suite.runs[3]
  assert (run.config.attack.epsilon, run.config.train.seed) == (4, 1)
  assert suite.claims[0].terms == (
    suite_lib.Term(1, 'b', 'clean'),
    suite_lib.Term(-1, 'a', 'clean'),
  )


def test_a_digest_is_of_the_settings_and_of_nothing_else(tmp_path):
  values = _values()
  before = _load(tmp_path, values).runs
  values['claims'], values['name'] = [], 'other'
  values['stages'][0]['seeds'] = 3
  after = {(r.cell, r.seed): r.digest for r in _load(tmp_path, values).runs}
  assert all(after[run.cell, run.seed] == run.digest for run in before)
  values['run']['train']['epochs'] = 3
  changed = {run.digest for run in _load(tmp_path, values).runs}
  assert not changed & {run.digest for run in before}


@pytest.mark.parametrize(
  'change, message',
  [
    (dict(clams=[]), 'suite: .*did you mean claims'),
    (
      dict(claims=[{'claim': '', 'is_positive': 'a.clean - d.clean'}]),
      "is_positive: got 'd'",
    ),
    (
      dict(claims=[{'claim': '', 'is_positive': 'a.clean - b.attacked'}]),
      "is_positive: b: got 'attacked'",
    ),
    (
      dict(claims=[{'claim': '', 'is_positive': 'a.clean / b.clean'}]),
      'a sum of <cell>.<measure>',
    ),
    (
      dict(stages=[{'seeds': 1, 'cells': {'a': {'train': {'epoch': 1}}}}]),
      r'a\.train\.epoch: ',
    ),
  ],
)
def test_a_wrong_suite_is_named_in_one_line(tmp_path, change, message):
  with pytest.raises(config_lib.ConfigError, match=message):
    _load(tmp_path, {**_values(), **change})


@pytest.mark.parametrize('name', ['suites/demo', 'suites/cifar10'])
def test_the_suites_of_the_project_load(name):
  suite = suite_lib.load(paths.recipe(name))
  assert suite.claims and len({run.digest for run in suite.runs}) == len(
    suite.runs
  )


def test_the_suite_of_cifar10_tests_every_claim():
  """With five seeds of each method, and three of what varies it."""
  suite = suite_lib.load(paths.recipe('cifar10/suite'))
  letters = {claim.text[0] for claim in suite.claims}
  assert letters == set('abcdefghij')
  seeds = dict.fromkeys(suite.cells, 0)
  for run in suite.runs:
    seeds[run.cell] += 1
  methods = 'vanilla', 'advprop', 'mixture', 'adversarial', 'pretrain_finetune'
  assert min(seeds[cell] for cell in methods) == 5
  assert min(seeds.values()) == 3
