"""What a suite found: tables, tests of its claims, plots."""

from collections.abc import Iterable, Mapping, Sequence
import os
import re
import statistics
import textwrap
from typing import Any, NamedTuple, Optional

from efficientnet_advprop.base import errors
from efficientnet_advprop.base import files
from efficientnet_advprop.evaluation import tables
from tools.suites import suite as suite_lib

_LEVEL = 0.05  # Of significance, two-sided.
_WIDTH = 7.0  # Of plots, in inches.
_LETTERED = (
  '\na letter is a claim of the paper; its lines test it in several ways'
)
_COLUMNS = 80
_TEST = (
  'Each line is a two-sided paired t-test over seeds: each seed gives a cell'
  ' and its rival the same initial weights and order of images. `points` is the'
  ' mean of the sum in the second column, in percentage points; `d` is that'
  ' mean over the standard deviation. A claim holds or fails if p < {level};'
  ' otherwise it is undecided.'
)
_CORRECTION = (
  'Among many tests some have a small p by chance. "Holm\'s p" corrects for the'
  ' number of tests: the chance that any verdict of the last column is such an'
  ' accident is at most {level:.0%}. {counts}'
)
_LAST_FIFTH = (
  ' `last fifth` is what the last fifth of the epochs gained on clean images,'
  ' in points.'
)
_CORRECTED = "undecided after Holm's correction"
_LETTER = re.compile(r'([a-z])\. ')  # In front of a claim: `a. It holds`.
_LEGEND = 'outside upper center'  # Dots may be anywhere in the axes.

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
  student = _import('scipy.stats').t(len(differences) - 1)
  mean = statistics.mean(differences)
  deviation = statistics.stdev(differences)
  error = deviation / len(differences) ** 0.5
  p_value = 2 * float(student.sf(abs(mean) / error))
  margin = float(student.ppf(1 - _LEVEL / 2)) * error
  low, high = mean - margin, mean + margin
  effect_size = mean / deviation
  word = _word(mean, p_value)
  return Verdict(differences, mean, low, high, p_value, effect_size, word)


def _word(mean: float, p_value: float) -> str:
  if p_value >= _LEVEL:
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


def _family(claims: Sequence[suite_lib.Claim]) -> list[int]:
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
  family = _family(claims)
  found = [verdicts[number] for number in family]
  corrected = holm([v.p_value if v is not None else 1.0 for v in found])
  for number, verdict, p_value in zip(family, found, corrected):
    if verdict is not None:
      word = _word(verdict.mean, p_value)
      verdicts[number] = verdict._replace(
        corrected_p=p_value, corrected_word=word
      )
  return verdicts


def _import(name: str) -> Any:
  try:
    import importlib

    return importlib.import_module(name)
  except ImportError as error:
    raise errors.DataError(
      f'a report needs packages that are not here ({error}): pip install -r'
      ' requirements-results.txt'
    ) from None


def cell_table(suite: suite_lib.Suite, results: Results) -> str:
  """Mean and standard deviation over seeds of each cell's measures."""
  measures = [suite_lib.PLAIN_TEST]
  for run in suite.runs:
    measures += [m for m in run.config.eval.tests if m not in measures]
  has_curves = bool(last_gains(results.values()))
  rows = []
  for cell in suite.cells:
    lines = [line for (name, _), line in results.items() if name == cell]
    row = [cell, str(len(lines))]
    for measure in measures:
      values = list(accuracies(results, cell, measure).values())
      row.append(_spread(values))
    if has_curves:
      row.append(_spread(last_gains(lines)))
    seconds = [line['train_cpu_seconds'] for line in lines]
    row.append(f'{statistics.mean(seconds) / 60:.1f}' if seconds else '')
    rows.append(row)
  header = ['cell', 'seeds', *measures]
  header += ['last fifth'] if has_curves else []
  return tables.markdown([*header, 'CPU minutes of training'], rows)


def last_gains(lines: Iterable[Mapping[str, Any]]) -> list[float]:
  """How much each run gained in the last fifth of its epochs, in points.

  Runs that were evaluated at no point of the fifth before are left out.
  """
  gains = []
  for line in lines:
    points = line.get('curve', [])
    if not points:
      continue
    last_epoch, last = points[-1]
    # Evaluations fall on log lines, up to one interval after 80%.
    before = [v for epoch, v in points if 0.6 <= epoch / last_epoch <= 0.85]
    if before:
      gains.append(last - before[-1])
  return gains


def _spread(values: Sequence[float]) -> str:
  if len(values) < 2:
    return ''.join(f'{value:.2f}' for value in values)
  return f'{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}'


def claim_table(
  claims: Sequence[suite_lib.Claim], verdicts: Sequence[Optional[Verdict]]
) -> str:
  """Each claim's test."""
  rows = []
  for claim, verdict in zip(claims, verdicts):
    text = f'{claim.text} (primary)' if claim.is_primary else claim.text
    row = [text, f'`{claim.expression}`']
    if verdict is None:
      row += [''] * 5 + ['not run', '', '']
    else:
      row += [
        str(len(verdict.differences)),
        f'{verdict.mean:+.2f}',
        f'{verdict.low:+.2f} to {verdict.high:+.2f}',
        f'{verdict.p_value:.2g}',
        f'{verdict.effect_size:+.2f}',
        verdict.word,
        '' if verdict.corrected_p is None else f'{verdict.corrected_p:.2g}',
        verdict.corrected_word,
      ]
    rows.append(row)
  header = [
    *('claim', 'positive if it holds', 'seeds', 'points', '95% interval'),
    *('p', 'd', 'verdict', "Holm's p", 'corrected verdict'),
  ]
  return tables.markdown(header, rows)


def _correction(
  claims: Sequence[suite_lib.Claim], verdicts: Sequence[Optional[Verdict]]
) -> str:
  """Says what the correction is for, and how many claims survive it."""
  found = [verdicts[number] for number in _family(claims)]
  tested = [verdict for verdict in found if verdict is not None]
  alone = sum(verdict.word != 'undecided' for verdict in tested)
  still = sum(verdict.corrected_word != 'undecided' for verdict in tested)
  kind = 'primary' if any(claim.is_primary for claim in claims) else 'tested'
  return _CORRECTION.format(
    level=_LEVEL,
    counts=f'Of {len(tested)} {kind} claims, {alone} have p < {_LEVEL} alone'
    f' and {still} after the correction.',
  )


def _letters(claims: Sequence[suite_lib.Claim]) -> str:
  """Explains letters in front of the claims, if they have any."""
  letters = [match[1] for c in claims if (match := _LETTER.match(c.text))]
  if not letters:
    return ''
  return (
    f'The letters {letters[0]} to {letters[-1]} number the claims of the paper;'
    ' lines with the same letter test one claim in several ways.'
  )


def _summary(suite: suite_lib.Suite, results: Results) -> str:
  """What was run, on which images, with which packages."""
  stacks: dict[str, set[str]] = {}
  for line in results.values():
    stack = f'TensorFlow {line["tensorflow"]}, Python {line["python"]}'
    stacks.setdefault(stack, set()).add(line['date'])
  seconds = sum(
    line['train_cpu_seconds'] + line['test_cpu_seconds']
    for line in results.values()
  )
  images = ', '.join(
    f'{part.images or "all"} of {split}'
    + (f' (other images of {part.source})' if part.source != split else '')
    for split, part in suite.splits.items()
  )
  sentences = [
    f'{len(results)} of {len(suite.runs)} runs, {seconds / 3600:.1f}'
    ' core-hours.',
    f'Images: {images}.',
  ]
  if suite.corrupted_images:
    sentences.append(
      f'{suite.corrupted_images} images of validation in 15 corruptions at 5'
      ' severities, whose mean is `corrupted`.'
    )
  if suite.chosen:
    sentences.append(f'Chosen: {", ".join(suite.chosen)}.')
  if suite.waiting:
    sentences.append(f'{suite.waiting} further runs wait for a choice.')
  sentences += [f'{s}, {", ".join(sorted(d))}.' for s, d in stacks.items()]
  return ' '.join(sentences)


def text(
  suite: suite_lib.Suite,
  results: Results,
  verdicts: Sequence[Optional[Verdict]],
  command: str,
) -> str:
  """Returns the report of a suite as Markdown.

  Args:
    suite: what was to be run.
    results: what has been.
    verdicts: of the suite's claims, in their order.
    command: that makes the results.
  """
  cells = 'Top-1 accuracy in percent, mean ± standard deviation over seeds.'
  if last_gains(results.values()):
    cells += _LAST_FIFTH
  paragraphs = [
    _summary(suite, results),
    '## Claims',
    _TEST.format(level=_LEVEL),
    _correction(suite.claims, verdicts),
    _letters(suite.claims),
    claim_table(suite.claims, verdicts),
    f'![Claims]({suite.name}-claims.png)',
    '## Cells',
    cells,
    cell_table(suite, results),
    f'![Cells]({suite.name}-cells.png)',
  ]
  filled = [
    p if p.startswith(('#', '|', '!')) else textwrap.fill(p, _COLUMNS)
    for p in paragraphs
    if p
  ]
  head = f'# Results of the suite {suite.name}\n\n```sh\n{command}\n```\n\n'
  return head + '\n\n'.join(filled) + '\n'


def write(
  suite: suite_lib.Suite, results: Results, directory: str, command: str
) -> str:
  """Writes `<suite>.md` and its plots.

  Args:
    suite: what was to be run.
    results: what has been.
    directory: for the files.
    command: that makes the results.

  Returns:
    The path of the report.

  Raises:
    DataError: a package is missing.
  """
  verdicts = judge_all(suite.claims, results)
  start = os.path.join(directory, suite.name)
  _plot_cells(suite, results, f'{start}-cells.png')
  _plot_claims(suite.claims, verdicts, f'{start}-claims.png')
  report = text(suite, results, verdicts, command)
  files.write(f'{start}.md', report)
  return f'{start}.md'


def _axes(rows: int) -> tuple[Any, Any]:
  figure = _import('matplotlib.figure').Figure(
    figsize=(_WIDTH, 1.0 + 0.32 * rows), layout='constrained'
  )
  axes = figure.add_subplot()
  axes.grid(axis='x', alpha=0.3)
  axes.set_ylim(rows - 0.5, -0.5)
  return figure, axes


def _plot_cells(suite: suite_lib.Suite, results: Results, path: str) -> None:
  figure, axes = _axes(len(suite.cells))
  measures = dict.fromkeys(m for v in results.values() for m in v['accuracies'])
  for color, measure in enumerate(measures):
    points: list[tuple[float, int]] = []
    for row, cell in enumerate(suite.cells):
      values = accuracies(results, cell, measure).values()
      points += [(value, row) for value in values]
    if points:
      axes.scatter(*zip(*points), s=18, color=f'C{color}', alpha=0.6)
      axes.scatter([], [], color=f'C{color}', label=measure)
  axes.set_yticks(range(len(suite.cells)), suite.cells)
  axes.set_xlabel('top-1 accuracy, %; a dot is a seed')
  if measures:
    figure.legend(loc=_LEGEND, ncols=len(measures))
  figure.savefig(path, dpi=120)


def _plot_claims(
  claims: Sequence[suite_lib.Claim],
  verdicts: Sequence[Optional[Verdict]],
  path: str,
) -> None:
  figure, axes = _axes(len(claims))
  colors = {'holds': 'C2', 'fails': 'C3', 'undecided': 'C7'}
  axes.axvline(0, color='black', linewidth=0.8)
  for row, verdict in enumerate(verdicts):
    if verdict is not None:
      color = colors[verdict.word]
      axes.plot([verdict.low, verdict.high], [row, row], color=color)
      still = verdict.corrected_word in ('', verdict.word)
      inside = color if still else 'white'
      axes.plot(verdict.mean, row, 'o', color=color, markerfacecolor=inside)
  for word, color in colors.items():
    axes.plot([], [], 'o-', color=color, label=word)
  axes.plot(
    [], [], 'o', color='black', markerfacecolor='white', label=_CORRECTED
  )
  axes.set_yticks(range(len(claims)), [claim.text for claim in claims])
  axes.tick_params(axis='y', labelsize=7)
  # Below the whole figure: long names leave the axes narrow.
  figure.supxlabel(
    'percentage points in favour: mean and 95% interval'
    + _LETTERED * any(_LETTER.match(claim.text) for claim in claims),
    fontsize=9,
  )
  figure.legend(loc=_LEGEND, ncols=2)
  figure.savefig(path, dpi=120)
