"""What a suite found, as a page: its runs, claims, tables and plots."""

from collections.abc import Iterable, Mapping, Sequence
import os
import statistics
import textwrap
from typing import Any, Optional

from efficientnet_advprop.base import files
from efficientnet_advprop.evaluation import tables
from tools.suites import plots
from tools.suites import suite as suite_lib
from tools.suites import verdicts as verdicts_lib

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


def cell_table(suite: suite_lib.Suite, results: verdicts_lib.Results) -> str:
  """Formats mean and standard deviation over seeds of each cell's measures."""
  measures = [suite_lib.PLAIN_TEST]
  for run in suite.runs:
    measures += [m for m in run.config.eval.tests if m not in measures]
  has_curves = bool(last_gains(results.values()))
  rows = []
  for cell in suite.cells:
    lines = [line for (name, _), line in results.items() if name == cell]
    row = [cell, str(len(lines))]
    for measure in measures:
      values = list(verdicts_lib.accuracies(results, cell, measure).values())
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
  """Computes what each run gained in the last fifth of its epochs, in points.

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
  claims: Sequence[suite_lib.Claim],
  verdicts: Sequence[Optional[verdicts_lib.Verdict]],
) -> str:
  """Formats each claim's test as a row."""
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
  claims: Sequence[suite_lib.Claim],
  verdicts: Sequence[Optional[verdicts_lib.Verdict]],
) -> str:
  """Says what the correction is for, and how many claims survive it."""
  found = [verdicts[number] for number in verdicts_lib.family(claims)]
  tested = [verdict for verdict in found if verdict is not None]
  alone = sum(verdict.word != 'undecided' for verdict in tested)
  still = sum(verdict.corrected_word != 'undecided' for verdict in tested)
  kind = 'primary' if any(claim.is_primary for claim in claims) else 'tested'
  level = verdicts_lib.LEVEL
  return _CORRECTION.format(
    level=level,
    counts=f'Of {len(tested)} {kind} claims, {alone} have p < {level} alone'
    f' and {still} after the correction.',
  )


def _letters(claims: Sequence[suite_lib.Claim]) -> str:
  """Explains letters in front of the claims, if they have any."""
  letters = [
    match[1] for c in claims if (match := suite_lib.LETTER.match(c.text))
  ]
  if not letters:
    return ''
  return (
    f'The letters {letters[0]} to {letters[-1]} number the claims of the paper;'
    ' lines with the same letter test one claim in several ways.'
  )


def _summary(suite: suite_lib.Suite, results: verdicts_lib.Results) -> str:
  """Says what was run, on which images, with which packages."""
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
  results: verdicts_lib.Results,
  verdicts: Sequence[Optional[verdicts_lib.Verdict]],
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
    _TEST.format(level=verdicts_lib.LEVEL),
    _correction(suite.claims, verdicts),
    _letters(suite.claims),
    claim_table(suite.claims, verdicts),
    f'![Claims]({suite.name}-claims.png)' if _is_tested(verdicts) else '',
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
  suite: suite_lib.Suite,
  results: verdicts_lib.Results,
  directory: str,
  command: str,
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
  verdicts = verdicts_lib.judge_all(suite.claims, results)
  start = os.path.join(directory, suite.name)
  plots.plot_cells(suite, results, f'{start}-cells.png')
  if _is_tested(verdicts):
    plots.plot_claims(suite.claims, verdicts, f'{start}-claims.png')
  report = text(suite, results, verdicts, command)
  files.write(f'{start}.md', report)
  return f'{start}.md'


def _is_tested(verdicts: Sequence[Optional[verdicts_lib.Verdict]]) -> bool:
  """Whether any claim has been tested, which takes two seeds."""
  return any(verdict is not None for verdict in verdicts)
