"""Plots of a suite's cells and claims."""

from collections.abc import Sequence
from typing import Any, Optional

from tools.suites import suite as suite_lib
from tools.suites import verdicts as verdicts_lib

_WIDTH = 7.0  # Of plots, in inches.
_LETTERED = (
  '\na letter is a claim of the paper; its lines test it in several ways'
)
_CORRECTED = "undecided after Holm's correction"
_LEGEND = 'outside upper center'  # Dots may be anywhere in the axes.


def _axes(rows: int) -> tuple[Any, Any]:
  rows = max(rows, 2)  # Legend and labels leave no room for axes otherwise.
  figure = verdicts_lib.package('matplotlib.figure').Figure(
    figsize=(_WIDTH, 1.0 + 0.32 * rows), layout='constrained'
  )
  axes = figure.add_subplot()
  axes.grid(axis='x', alpha=0.3)
  axes.set_ylim(rows - 0.5, -0.5)
  return figure, axes


def plot_cells(
  suite: suite_lib.Suite, results: verdicts_lib.Results, path: str
) -> None:
  """Draws each run's accuracies, a row for each cell that has been run.

  Args:
    suite: names the cells.
    results: what has been run.
    path: of the PNG file.

  Raises:
    DataError: a package is missing.
  """
  run = {cell for cell, _ in results}
  cells = [cell for cell in suite.cells if cell in run]
  figure, axes = _axes(len(cells))
  measures = dict.fromkeys(m for v in results.values() for m in v['accuracies'])
  for color, measure in enumerate(measures):
    points: list[tuple[float, int]] = []
    for row, cell in enumerate(cells):
      values = verdicts_lib.accuracies(results, cell, measure).values()
      points += [(value, row) for value in values]
    if points:
      axes.scatter(*zip(*points), s=18, color=f'C{color}', alpha=0.6)
      axes.scatter([], [], color=f'C{color}', label=measure)
  axes.set_yticks(range(len(cells)), cells)
  axes.set_xlabel('top-1 accuracy, %; a dot is a seed')
  if measures:
    figure.legend(loc=_LEGEND, ncols=len(measures))
  figure.savefig(path, dpi=120)


def plot_claims(
  claims: Sequence[suite_lib.Claim],
  verdicts: Sequence[Optional[verdicts_lib.Verdict]],
  path: str,
) -> None:
  """Draws mean and interval of each claim that has been tested, in a row.

  Args:
    claims: in the order of their rows.
    verdicts: of these claims; None for those that have not been tested.
    path: of the PNG file.

  Raises:
    DataError: a package is missing.
  """
  tested = [(c.text, v) for c, v in zip(claims, verdicts) if v is not None]
  figure, axes = _axes(len(tested))
  colors = {'holds': 'C2', 'fails': 'C3', 'undecided': 'C7'}
  axes.axvline(0, color='black', linewidth=0.8)
  for row, (_, verdict) in enumerate(tested):
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
  axes.set_yticks(range(len(tested)), [text for text, _ in tested])
  axes.tick_params(axis='y', labelsize=7)
  # Below the whole figure: long names leave the axes narrow.
  figure.supxlabel(
    'percentage points in favour: mean and 95% interval'
    + _LETTERED * any(suite_lib.LETTER.match(text) for text, _ in tested),
    fontsize=9,
  )
  figure.legend(loc=_LEGEND, ncols=2)
  figure.savefig(path, dpi=120)
