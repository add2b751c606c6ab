import pytest
import scipy.stats

from efficientnet_advprop import config as config_lib
from tools.suites import report
from tools.suites import suite as suite_lib

_A = [70.0, 71.5, 69.0, 70.5, 71.0]
_B = [68.0, 70.0, 69.5, 68.0, 69.0]
_CELLS = dict.fromkeys('abcde', config_lib.Config())


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


def test_primary_claims_share_one_error_rate():
  """Holm's method by hand, with a claim that has not been run."""
  results = _results(a=_A, b=_B)
  results.update(_results(c=[v - 1.1 for v in _A[::-1]], d=_A))
  single = [
    report.judge(_claim(text), results).p_value
    for text in ('a.clean - b.clean', 'a.clean - c.clean')
  ]
  assert single[0] < single[1]
  claims = [
    _claim('a.clean - c.clean')._replace(is_primary=True),
    _claim('a.clean - e.clean')._replace(is_primary=True),
    _claim('a.clean - b.clean')._replace(is_primary=True),
    _claim('a.clean - c.clean'),
  ]
  verdicts = report.judge_all(claims, results)
  assert verdicts[2].p_value == pytest.approx(3 * single[0])
  assert verdicts[0].p_value == pytest.approx(min(1, 2 * single[1]))
  assert verdicts[1] is None
  assert verdicts[3].p_value == pytest.approx(single[1])
  # Alone it would hold; the word is that of the corrected p.
  assert single[0] < 0.05 and verdicts[2].word == 'undecided'
  table = report.claim_table(claims, verdicts)
  assert table.count('(primary)') == 3


def test_the_gain_of_the_last_fifth_is_read_from_the_curve():
  lines = [
    {'curve': [[20, 40.0], [40, 55.0], [51.2, 60.0], [64, 60.4]]},
    {'curve': [[32, 55.0], [64, 60.0]]},  # Never evaluated in between.
    {},  # Of a suite that drew no curves.
  ]
  assert report.last_gains(lines) == [pytest.approx(0.4)]


def test_a_claim_that_was_not_run_says_so():
  claim = _claim('a.clean - b.clean')
  table = report.claim_table([claim], [None])
  assert table.splitlines()[-1].endswith('| not run |')
