import pytest
import scipy.stats

from efficientnet_advprop import config as config_lib
from tools.suites import report
from tools.suites import suite as suite_lib

_A = [70.0, 71.5, 69.0, 70.5, 71.0]
_B = [68.0, 70.0, 69.5, 68.0, 69.0]
_CELLS = dict.fromkeys('ab', config_lib.Config())


def _claim(expression):
  return suite_lib.Claim('c', expression, suite_lib._terms(expression, _CELLS))


def _results(**cells):
  return {
    (cell, seed): {'accuracies': {'clean': value}}
    for cell, values in cells.items()
    for seed, value in enumerate(values)
  }


def test_a_verdict_is_scipy_s_paired_t_test():
  verdict = report.judge(_claim('a.clean - b.clean'), _results(a=_A, b=_B))
  expected = scipy.stats.ttest_rel(_A, _B)
  assert verdict.p_value == pytest.approx(expected.pvalue, rel=1e-9)
  interval = expected.confidence_interval(0.95)
  assert (verdict.low, verdict.high) == pytest.approx(tuple(interval))
  # Cohen's d of paired differences is t over the root of their number.
  effect_size = expected.statistic / 5**0.5
  assert verdict.effect_size == pytest.approx(effect_size)
  assert verdict.word == 'holds'


@pytest.mark.parametrize(
  'a, b, word',
  [(_B, _A, 'fails'), (_A, [70.1, 71.4, 69.1, 70.4, 71.2], 'undecided')],
)
def test_a_claim_fails_or_stays_undecided(a, b, word):
  verdict = report.judge(_claim('a.clean - b.clean'), _results(a=a, b=b))
  assert verdict.word == word


def test_only_seeds_that_all_cells_share_count():
  results = _results(a=_A, b=_B[:3])
  verdict = report.judge(_claim('a.clean - b.clean'), results)
  assert verdict.differences == [2.0, 1.5, -0.5]
  assert report.judge(_claim('a.clean - b.clean'), {}) is None


def test_a_claim_that_was_not_run_says_so():
  claim = _claim('a.clean - b.clean')
  table = report.claim_table([claim], [None])
  assert table.splitlines()[-1].endswith('| not run |')
