"""AdvProp's gains over vanilla training, from all published results at once."""

from collections.abc import Sequence
import os
from typing import NamedTuple, Optional

from tools.suites import runner
from tools.suites import suite as suite_lib
from tools.suites import verdicts as verdicts_lib

MEASURES = {
  'clean': 'clean images',
  'corrupted': 'corrupted images',
  'attacked': 'under attack',
}
# Kinds of rivals, by their names in table and plot.
SAME, AS_MUCH = 'as many epochs', 'as much computation'
DOUBLED = 'as many epochs with the doubled loss'
TWICE = 'twice as many epochs'

_MARGIN = 3.0  # Of a panel around its means, in points.


class Comparison(NamedTuple):
  """AdvProp against one kind of vanilla training in one regime."""

  regime: str
  rival: str
  file: str  # Of the results, without `.jsonl`.
  cell: str
  rival_cell: str


_TRAINED = 'EfficientNet-Lite0 from ImageNet, 24 epochs, tuned'
_CONVERGED = 'ResNet-18, width .25, 128 epochs, tuned'
_WIDE = 'ResNet-18, width .5, 128 epochs, tuned'
_FAST = 'Fast AdvProp, ResNet-18, width .5, tuned'
_TUNED = 'ResNet-18, width .25, 64 epochs, tuned'
_SHORT = 'ResNet-18, width .25, 32 epochs, label'
_LONG = 'ResNet-18, width .25, 64 epochs, label'
_FINE = 'MobileNetV2, fine-tuned for 3 epochs'
COMPARISONS = (
  Comparison(_TRAINED, SAME, 'finetuning', 'advprop', 'vanilla'),
  Comparison(_TRAINED, AS_MUCH, 'finetuning', 'advprop', 'vanilla_long'),
  Comparison(_TRAINED, DOUBLED, 'finetuning', 'advprop', 'vanilla_doubled'),
  Comparison(_CONVERGED, SAME, 'converged', 'advprop', 'vanilla'),
  Comparison(_CONVERGED, AS_MUCH, 'converged', 'advprop', 'vanilla_long'),
  Comparison(_CONVERGED, DOUBLED, 'converged', 'advprop', 'vanilla_doubled'),
  Comparison(_WIDE, SAME, 'converged', 'wide_advprop', 'wide_vanilla'),
  Comparison(_WIDE, AS_MUCH, 'converged', 'wide_advprop', 'wide_vanilla_long'),
  Comparison(
    _WIDE, DOUBLED, 'converged', 'wide_advprop', 'wide_vanilla_doubled'
  ),
  Comparison(_FAST, AS_MUCH, 'converged', 'wide_fast', 'wide_vanilla'),
  Comparison(_TUNED, SAME, 'capacity', 'advprop', 'vanilla'),
  Comparison(_TUNED, AS_MUCH, 'capacity', 'advprop', 'vanilla_long'),
  Comparison(_TUNED, DOUBLED, 'capacity', 'advprop', 'vanilla_doubled'),
  Comparison(_FINE, SAME, 'fit', 'advprop', 'vanilla'),
  Comparison(_FINE, AS_MUCH, 'fit', 'advprop', 'long_vanilla'),
  Comparison(_SHORT, SAME, 'cifar10', 'advprop', 'vanilla'),
  Comparison(_SHORT, TWICE, 'cifar10', 'advprop', 'vanilla_long'),
  Comparison(_LONG, SAME, 'cifar10', 'advprop_long', 'vanilla_long'),
)


class Row(NamedTuple):
  """A comparison and what it found, by measure."""

  comparison: Comparison
  found: dict[str, Optional[verdicts_lib.Verdict]]


def judge(directory: str) -> list[Row]:
  """Tests every comparison over the seeds that both cells have.

  Args:
    directory: holds the files of results.

  Raises:
    DataError: a package is missing.
  """
  files = {}
  for name in {comparison.file for comparison in COMPARISONS}:
    lines = runner.read_lines(os.path.join(directory, f'{name}.jsonl'))
    files[name] = {(line['cell'], line['seed']): line for line in lines}
  rows = []
  for comparison in COMPARISONS:
    found = {}
    for measure in MEASURES:
      terms = (
        suite_lib.Term(1, comparison.cell, measure),
        suite_lib.Term(-1, comparison.rival_cell, measure),
      )
      claim = suite_lib.Claim(comparison.regime, '', terms)
      found[measure] = verdicts_lib.judge(claim, files[comparison.file])
    rows.append(Row(comparison, found))
  return rows


def table(rows: Sequence[Row]) -> str:
  """Returns the comparisons as a Markdown table, with 95% intervals."""
  measures = ' | '.join(f'{each}, points' for each in MEASURES.values())
  lines = [
    f'| regime | against vanilla training of | seeds | {measures} |',
    '|---' * (3 + len(MEASURES)) + '|',
  ]
  for comparison, found in rows:
    seeds = max(len(v.differences) if v else 0 for v in found.values())
    values = ' | '.join(_interval(verdict) for verdict in found.values())
    lines.append(
      f'| {comparison.regime} | {comparison.rival} | {seeds} | {values} |'
    )
  return '\n'.join(lines)


def _interval(verdict: Optional[verdicts_lib.Verdict]) -> str:
  if verdict is None:
    return 'not measured'
  mean, low, high = verdict.mean, verdict.low, verdict.high
  return f'{mean:+.1f} ({low:+.1f} to {high:+.1f})'


def plot(rows: Sequence[Row], path: str) -> None:
  """Draws means and intervals, a panel for each measure.

  The panels' frames cut off what is far from all means, such as the intervals
  of few and different seeds.

  Args:
    rows: from `judge`; those without any measure are left out.
    path: of the PNG file.

  Raises:
    DataError: a package is missing.
  """
  rows = [row for row in rows if any(row.found.values())]
  figure = verdicts_lib.package('matplotlib.figure').Figure(
    figsize=(11.0, 1.4 + 0.34 * len(rows)), layout='constrained'
  )
  panels = figure.subplots(1, len(MEASURES), sharey=True)
  rivals = list(dict.fromkeys(row.comparison.rival for row in rows))
  regimes = list(dict.fromkeys(row.comparison.regime for row in rows))
  for axes, (measure, title) in zip(panels, MEASURES.items()):
    axes.axvline(0, color='black', linewidth=0.8)
    axes.grid(axis='x', alpha=0.3)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_title(title, fontsize=10)
    means = [0.0, *(v.mean for row in rows if (v := row.found[measure]))]
    axes.set_xlim(min(means) - _MARGIN, max(means) + _MARGIN)
    for place, (comparison, found) in enumerate(rows):
      if regimes.index(comparison.regime) % 2 == 0:  # Bands tell them apart.
        axes.axhspan(place - 0.5, place + 0.5, color='0.94', zorder=0)
      color = f'C{rivals.index(comparison.rival)}'
      verdict = found[measure]
      if verdict is not None:
        axes.plot([verdict.low, verdict.high], [place, place], color=color)
        axes.plot(verdict.mean, place, 'o', color=color)
  for number, rival in enumerate(rivals):
    panels[0].plot([], [], 'o-', color=f'C{number}', label=rival)
  names = [row.comparison.regime for row in rows]
  shown = [n if n != before else '' for n, before in zip(names, ['', *names])]
  panels[0].set_yticks(range(len(rows)), shown)
  panels[0].tick_params(axis='y', labelsize=8)
  figure.supxlabel(
    'AdvProp less vanilla training, points of top-1: mean, 95% interval',
    fontsize=9,
  )
  figure.legend(
    loc='outside upper center', ncols=len(rivals), title='vanilla training of'
  )
  figure.savefig(path, dpi=120)
