"""What a suite found: tables, tests of its claims, plots."""

from collections.abc import Iterable, Mapping, Sequence
import os
import statistics
from typing import Any, NamedTuple, Optional

from efficientnet_advprop.base import errors
from efficientnet_advprop.base import files
from efficientnet_advprop.evaluation import tables
from tools.suites import suite as suite_lib

_LEVEL = 0.05  # Of significance, two-sided.
_WIDTH = 7.0  # Of plots, in inches.
_LEGEND = 'outside upper center'  # Dots may lie anywhere in the axes.

Results = Mapping[tuple[str, int], Mapping[str, Any]]  # By cell and seed.


class Verdict(NamedTuple):
  """A paired t-test of a claim over the seeds that all its cells share."""

  differences: list[float]  # In percentage points, by seed.
  mean: float
  low: float  # Of the 95% confidence interval.
  high: float
  p_value: float  # Of a primary claim among others: as `judge_all` corrects it.
  effect_size: float  # Cohen's d of the differences: mean over deviation.
  word: str  # 'holds', 'fails' or 'undecided'


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


def judge_all(
  claims: Sequence[suite_lib.Claim], results: Results
) -> list[Optional[Verdict]]:
  """Tests every claim; primary claims share one error rate.

  Their p-values and words are corrected by Holm's method, which multiplies the
  lowest p-value by the number of primary claims, the next by one less, and so
  on, and never lets one fall below another that was lower. Claims that have not
  been run count, so that a verdict does not depend on when it is read.

  Raises:
    DataError: a package is missing.
  """
  verdicts = [judge(claim, results) for claim in claims]
  primary = [n for n, claim in enumerate(claims) if claim.is_primary]
  found = [(n, verdicts[n]) for n in primary]
  tested = [(verdict.p_value, n, verdict) for n, verdict in found if verdict]
  left, highest = len(primary), 0.0
  for p_value, number, verdict in sorted(tested, key=lambda entry: entry[:2]):
    highest = max(highest, min(1.0, left * p_value))
    left -= 1
    word = _word(verdict.mean, highest)
    verdicts[number] = verdict._replace(p_value=highest, word=word)
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
      row += [''] * 5 + ['not run']
    else:
      row += [
        str(len(verdict.differences)),
        f'{verdict.mean:+.2f}',
        f'{verdict.low:+.2f} to {verdict.high:+.2f}',
        f'{verdict.p_value:.2g}',
        f'{verdict.effect_size:+.2f}',
        verdict.word,
      ]
    rows.append(row)
  header = 'claim', 'positive if it holds', 'seeds', 'points'
  return tables.markdown([*header, '95% interval', 'p', 'd', 'verdict'], rows)


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
  corrupted = ''
  if suite.corrupted_images:
    corrupted = (
      f'\n{suite.corrupted_images} of validation in 15 corruptions at'
      '\n5 severities, whose mean is `corrupted`.'
    )
  choices = ''
  if suite.chosen:
    choices = f'\nChosen: {", ".join(suite.chosen)}.'
  if suite.waiting:
    choices += f'\n{suite.waiting} further runs wait for a choice.'
  correction = ''
  if any(claim.is_primary for claim in suite.claims):
    correction = (
      "p of primary claims is corrected by Holm's method over all of them.\n"
    )
  text = f"""# Results of the suite {suite.name}

```
{command}
```

{len(results)} of {len(suite.runs)} runs, {seconds / 3600:.1f} core-hours.
Images: {images}.{corrupted}{choices}
{'; '.join(f'{s}, {", ".join(sorted(d))}' for s, d in stacks.items())}.

## Claims

A paired t-test over seeds, two-sided: each seed gives a cell and its rival the
same initial weights and order of images. `points` is the mean of the sum in
the second column, in percentage points; `d` is that mean over the standard
deviation. A claim holds or fails if p < {_LEVEL}; else it stays undecided.
{correction}

{claim_table(suite.claims, verdicts)}

![Claims]({suite.name}-claims.png)

## Cells

Top-1 accuracy in percent, mean ± standard deviation over seeds. `last fifth` is
what the last fifth of the epochs gained on clean images, in points.

{cell_table(suite, results)}

![Cells]({suite.name}-cells.png)
"""
  files.write(f'{start}.md', text)
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
      axes.plot(verdict.mean, row, 'o', color=color)
  for word, color in colors.items():
    axes.plot([], [], 'o-', color=color, label=word)
  axes.set_yticks(range(len(claims)), [claim.text for claim in claims])
  axes.tick_params(axis='y', labelsize=7)
  # Below the whole figure: long names leave the axes narrow.
  figure.supxlabel(
    'percentage points in favour, mean and 95% interval', fontsize=10
  )
  figure.legend(loc=_LEGEND, ncols=len(colors))
  figure.savefig(path, dpi=120)
