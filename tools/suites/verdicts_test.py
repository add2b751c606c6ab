import itertools

import pytest
import scipy.stats

from efficientnet_advprop import config as config_lib
from tools.suites import suite as suite_lib
from tools.suites import verdicts as verdicts_lib

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
  verdict = verdicts_lib.judge(
    _claim('a.clean - b.clean'), _results(a=_A, b=_B)
  )
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
  verdict = verdicts_lib.judge(_claim('a.clean - b.clean'), _results(a=a, b=b))
  assert verdict.word == word


def test_only_seeds_that_all_cells_share_count():
  results = _results(a=_A, b=_B[:3])
  verdict = verdicts_lib.judge(_claim('a.clean - b.clean'), results)
  assert verdict.differences == [2.0, 1.5, -0.5]
  assert verdicts_lib.judge(_claim('a.clean - b.clean'), {}) is None


def test_primary_claims_share_one_error_rate():
  """Holm's method by hand, with a claim that has not been run."""
  results = _results(a=_A, b=_B)
  results.update(_results(c=[v - 1.1 for v in _A[::-1]], d=_A))
  single = [
    verdicts_lib.judge(_claim(text), results).p_value
    for text in ('a.clean - b.clean', 'a.clean - c.clean')
  ]
  assert single[0] < single[1]
  claims = [
    _claim('a.clean - c.clean')._replace(is_primary=True),
    _claim('a.clean - e.clean')._replace(is_primary=True),
    _claim('a.clean - b.clean')._replace(is_primary=True),
    _claim('a.clean - c.clean'),
  ]
  verdicts = verdicts_lib.judge_all(claims, results)
  assert verdicts[2].corrected_p == pytest.approx(3 * single[0])
  assert verdicts[0].corrected_p == pytest.approx(min(1, 2 * single[1]))
  assert verdicts[1] is None
  assert verdicts[3].p_value == pytest.approx(single[1])
  assert verdicts[3].corrected_p is None
  # Alone it would hold.
  assert verdicts[2].word == 'holds'
  assert verdicts[2].corrected_word == 'undecided'


def _closed_testing(p_values):
  """Holm's procedure by its other definition: all hypotheses together.

  A test is rejected if Bonferroni's test rejects every set that contains it.
  """
  indices = range(len(p_values))
  subsets = [
    subset
    for size in range(1, len(p_values) + 1)
    for subset in itertools.combinations(indices, size)
  ]
  return [
    max(
      min(1.0, len(subset) * min(p_values[i] for i in subset))
      for subset in subsets
      if index in subset
    )
    for index in indices
  ]


@pytest.mark.parametrize(
  'p_values',
  [
    [0.01, 0.04, 0.03, 0.005],
    [0.3, 0.02, 0.02, 0.9, 0.0001, 0.04],
    [0.2],
    [],
  ],
)
def test_holm_equals_closed_testing(p_values):
  expected = _closed_testing(p_values)
  assert verdicts_lib.holm(p_values) == pytest.approx(expected)


def test_holm_s_textbook_example():
  assert verdicts_lib.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx(
    [0.03, 0.06, 0.06, 0.02]
  )


def test_without_primary_claims_all_share_one_error_rate():
  results = _results(a=_A, b=_B)
  claims = [_claim('a.clean - b.clean')] * 20
  alone, *_ = verdicts_lib.judge_all(claims[:1], results)
  assert alone.word == alone.corrected_word == 'holds'
  assert alone.corrected_p == alone.p_value
  first, *_ = verdicts_lib.judge_all(claims, results)
  assert first.corrected_p == pytest.approx(20 * alone.p_value)
  assert (first.word, first.corrected_word) == ('holds', 'undecided')
