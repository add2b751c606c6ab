import collections
import glob
import os

import pytest
import yaml

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import paths
from tools.suites import runner as runner_lib
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
  path.write_text(yaml.safe_dump(values, sort_keys=False))
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


def _line(run, accuracy):
  return {
    **dict(cell=run.cell, seed=run.seed, digest=run.digest),
    'accuracies': {'clean': accuracy},
  }


def test_later_stages_take_the_settings_of_the_best_cell(tmp_path):
  values = _values()
  slow, fast = ({'train': {'learning_rate': rate}} for rate in (0.1, 0.4))
  values['stages'].insert(
    0, {'seeds': 2, 'choose': True, 'cells': {'slow': slow, 'fast': fast}}
  )
  suite = _load(tmp_path, values)
  assert (suite.cells, suite.chosen, suite.waiting) == (('slow', 'fast'), (), 5)
  assert suite.claims[0].terms[0].cell == 'b'  # A claim does not wait.
  # By seed: the mean decides, and it is that of all seeds.
  lines = [_line(*entry) for entry in zip(suite.runs, (50, 40, 50, 61))]
  path = str(tmp_path / 'suite.yaml')
  assert suite_lib.load(path, lines[:3]).waiting == 5
  stale = [*lines[:3], {**lines[3], 'digest': 'of other settings'}]
  assert suite_lib.load(path, stale).waiting == 5
  whole = suite_lib.load(path, lines)
  assert (whole.chosen, whole.waiting) == (('fast',), 0)
  assert whole.runs[:4] == suite.runs and len(whole.runs) == 9
  rates = {run.config.train.learning_rate for run in whole.runs[4:]}
  assert rates == {0.4}
  # The settings that were chosen are part of the digests.
  lines[1]['accuracies']['clean'] = 20
  other = suite_lib.load(path, lines)
  assert other.chosen == ('slow',)
  digests = {run.digest for run in other.runs[4:]}
  assert not digests & {run.digest for run in whole.runs[4:]}


@pytest.mark.parametrize(
  'change, message',
  [
    (dict(clams=[]), 'suite: .*did you mean claims'),
    (dict(stages=[{'seed': 1, 'cells': {}}]), 'stages: .*did you mean seeds'),
    (dict(claims=[{'claim': '', 'primry': True}]), 'claims: .*mean primary'),
    (dict(splits={'train': {'off': 'a'}}), "splits.train: got 'off'"),
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


@pytest.mark.parametrize(
  'path', sorted(glob.glob(paths.recipe('suites/*'))), ids=os.path.basename
)
def test_the_suites_of_the_project_load(path):
  suite = suite_lib.load(path)
  assert suite.claims and len({run.digest for run in suite.runs}) == len(
    suite.runs
  )


def test_the_suite_of_cifar10_tests_every_claim():
  """With five seeds of each method, and three of what varies it."""
  suite = suite_lib.load(paths.recipe('suites/cifar10'))
  letters = {claim.text[0] for claim in suite.claims}
  assert letters == set('abcdefghij')
  seeds = dict.fromkeys(suite.cells, 0)
  for run in suite.runs:
    seeds[run.cell] += 1
  methods = 'vanilla', 'advprop', 'mixture', 'adversarial', 'pretrain_finetune'
  assert min(seeds[cell] for cell in methods) == 5
  assert min(seeds.values()) == 3


def test_the_published_lines_of_cifar10_are_of_its_cells():
  """And its cells say what they were: attacks away from the label."""
  path = paths.recipe('suites/cifar10')
  results = os.path.join(os.path.dirname(path), '../../docs/results')
  suite = suite_lib.load(path)
  lines = runner_lib.read_results(f'{results}/cifar10.jsonl', suite)
  assert len(lines) == len(suite.runs)
  assert {run.config.attack.target for run in suite.runs} == {'label'}


@pytest.mark.parametrize(
  'name, prefixes',
  [
    ('capacity', ('', 'wide_')),
    ('converged', ('', 'wide_')),
    ('finetuning', ('',)),
  ],
)
def test_the_suites_of_the_protocol_have_both_controls(name, prefixes):
  """The longer and the doubled vanilla run, with five seeds."""
  path = paths.recipe(f'suites/{name}')
  suite = suite_lib.load(path)
  while suite.waiting:  # As if every cell were as good: the first is chosen.
    lines = [_line(run, 50.0) for run in suite.runs]
    suite = suite_lib.load(path, lines)
  seeds = collections.Counter(run.cell for run in suite.runs)
  configs = {run.cell: run.config for run in suite.runs}
  for prefix in prefixes:
    own, vanilla, doubled, long = (
      configs[f'{prefix}{cell}']
      for cell in ('advprop', 'vanilla', 'vanilla_doubled', 'vanilla_long')
    )
    assert own.attack.target == 'random' and own.attack.num_steps == 1
    # Two training passes at 3 units and an attack step at 2, against 3.
    assert long.train.epochs == pytest.approx(
      vanilla.train.epochs * 8 / 3, 1e-4
    )
    if vanilla.train.schedule == 'staircase':
      assert long.train_steps / long.train.decay_epochs == pytest.approx(
        vanilla.train_steps / vanilla.train.decay_epochs, 1e-3
      )
    assert (doubled.train.loss_weight, vanilla.train.loss_weight) == (2, 1)
    for field in ('learning_rate', 'weight_decay'):
      assert len({getattr(c.train, field) for c in (own, doubled, long)}) == 1
  primary = [claim for claim in suite.claims if claim.is_primary]
  assert len(primary) == 3 * len(prefixes)
  for claim in primary:
    assert all(seeds[term.cell] == 5 for term in claim.terms)
  # Choices are made on images that are neither trained nor tested on.
  chooser = next(run.config for run in suite.runs if 'rate' in run.cell)
  assert chooser.data.eval_split == 'held_out'
  assert suite.splits['held_out'] == suite_lib.Part('train', 5000)
