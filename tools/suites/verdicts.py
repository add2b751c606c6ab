"""Tests of a suite's claims: paired t-tests, corrected for their number."""

from collections.abc import Mapping, Sequence
import importlib
import statistics
from typing import Any, NamedTuple, Optional

from efficientnet_advprop.base import errors
from tools.suites import suite as suite_lib

LEVEL = 0.05  # Of significance, two-sided.

Results = Mapping[tuple[str, int], Mapping[str, Any]]  # By cell and seed.


class Verdict(NamedTuple):
  """A paired t-test of a claim over the seeds that all its cells share."""

  differences: list[float]  # In percentage points, by seed.
  mean: float
  low: float  # Of the 95% confidence interval.
  high: float
  p_value: float
  effect_size: float  # Cohen's d of the differences: mean over deviation.
  word: str  # 'holds', 'fails' or 'undecided'
  # The same two among the claims that share an error rate; `judge_all` sets
  # them for those claims.
  corrected_p: Optional[float] = None
  corrected_word: str = ''


def accuracies(results: Results, cell: str, measure: str) -> dict[int, float]:
  """By seed, in percent."""
  return {
    seed: line['accuracies'][measure]
    for (name, seed), line in sorted(results.items())
    if name == cell and measure in line['accuracies']
  }


def judge(claim: suite_lib.Claim, results: Results) -> Optional[Verdict]:
  """Tests whether the claim's sum differs from 0; None below two seeds.

  Raises:
    DataError: a package is missing.
  """
  found = [(t.sign, accuracies(results, *t[1:])) for t in claim.terms]
  seeds = set.intersection(*(set(values) for _, values in found))
  differences = [
    sum(sign * values[seed] for sign, values in found) for seed in sorted(seeds)
  ]
  if len(differences) < 2 or len(set(differences)) < 2:
    return None
  student = package('scipy.stats').t(len(differences) - 1)
  mean = statistics.mean(differences)
  deviation = statistics.stdev(differences)
  error = deviation / len(differences) ** 0.5
  p_value = 2 * float(student.sf(abs(mean) / error))
  margin = float(student.ppf(1 - LEVEL / 2)) * error
  low, high = mean - margin, mean + margin
  effect_size = mean / deviation
  word = _word(mean, p_value)
  return Verdict(differences, mean, low, high, p_value, effect_size, word)


def _word(mean: float, p_value: float) -> str:
  if p_value >= LEVEL:
    return 'undecided'
  return 'holds' if mean > 0 else 'fails'


def holm(p_values: Sequence[float]) -> list[float]:
  """Corrects p-values for their number by Holm's step-down procedure.

  Args:
    p_values: of all tests of a family, in any order.

  Returns:
    In the same order, the smallest level at which each test still rejects while
    the chance of one false rejection among all of them stays below that level
    (Holm, Scandinavian Journal of Statistics, 1979).
  """
  corrected = [0.0] * len(p_values)
  highest = 0.0
  order = sorted(range(len(p_values)), key=lambda index: p_values[index])
  for rank, index in enumerate(order):
    remaining = len(p_values) - rank
    highest = max(highest, min(1.0, remaining * p_values[index]))
    corrected[index] = highest
  return corrected


def family(claims: Sequence[suite_lib.Claim]) -> list[int]:
  """Numbers of the claims that share one error rate: primary ones, else all."""
  primary = [n for n, claim in enumerate(claims) if claim.is_primary]
  return primary or list(range(len(claims)))


def judge_all(
  claims: Sequence[suite_lib.Claim], results: Results
) -> list[Optional[Verdict]]:
  """Tests every claim, alone and among those that share its error rate.

  Primary claims share one error rate; in a suite without any, all claims do.
  Claims that have not been run count, so that a verdict does not depend on when
  it is read.

  Raises:
    DataError: a package is missing.
  """
  verdicts = [judge(claim, results) for claim in claims]
  members = family(claims)
  found = [verdicts[number] for number in members]
  corrected = holm([v.p_value if v is not None else 1.0 for v in found])
  for number, verdict, p_value in zip(members, found, corrected):
    if verdict is not None:
      word = _word(verdict.mean, p_value)
      verdicts[number] = verdict._replace(
        corrected_p=p_value, corrected_word=word
      )
  return verdicts


def package(name: str) -> Any:
  """Imports a package that only reports need.

  Raises:
    DataError: it is missing; the line names the file to install.
  """
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise errors.DataError(
      f'a report needs packages that are not here ({error}): pip install -r'
      ' requirements-results.txt'
    ) from None
