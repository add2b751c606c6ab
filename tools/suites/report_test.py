from pathlib import Path
import re

import pytest

from efficientnet_advprop.base import paths
from tools.suites import report
from tools.suites import runner
from tools.suites import suite as suite_lib
from tools.suites import verdicts as verdicts_lib

_ROOT = Path(__file__).parents[2]


def test_the_gain_of_the_last_fifth_is_read_from_the_curve():
  lines = [
    {'curve': [[20, 40.0], [40, 55.0], [51.2, 60.0], [64, 60.4]]},
    {'curve': [[32, 55.0], [64, 60.0]]},  # Never evaluated in between.
    {},  # Of a suite that drew no curves.
  ]
  assert report.last_gains(lines) == [pytest.approx(0.4)]


def test_a_claim_that_was_not_run_says_so():
  terms = (suite_lib.Term(1, 'a', 'clean'), suite_lib.Term(-1, 'b', 'clean'))
  claim = suite_lib.Claim('c', 'a.clean - b.clean', terms)
  primary = claim._replace(is_primary=True)
  table = report.claim_table([claim, primary, primary], [None] * 3)
  assert table.count('(primary)') == 2
  assert table.splitlines()[-1].endswith('| not run |  |  |')


@pytest.mark.parametrize(
  'name', ['capacity', 'converged', 'finetuning', 'cifar10', 'demo']
)
def test_published_reports_follow_from_their_results(name):
  """The tables of docs/results are those of the lines next to them."""
  path = _ROOT / 'docs' / 'results' / name
  lines = runner.read_lines(f'{path}.jsonl')
  suite = suite_lib.load(paths.recipe(f'suites/{name}'), lines)
  results = runner.read_results(f'{path}.jsonl', suite)
  verdicts = verdicts_lib.judge_all(suite.claims, results)
  written = path.with_suffix('.md').read_text()
  (command,) = re.findall(r'```sh\n(.*)\n```', written)
  assert report.text(suite, results, verdicts, command) == written
