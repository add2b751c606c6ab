"""Results as tables for people."""

from collections.abc import Mapping, Sequence
from typing import Any


def format_table(
  header: Sequence[str],
  rows: Sequence[Sequence[str]],
  left: Sequence[int] = (0,),
) -> str:
  """Aligns cells under a header.

  Args:
    header: of the columns.
    rows: as many cells each.
    left: numbers of the columns that are aligned to the left; all others are
      aligned to the right.
  """
  lines: list[Sequence[str]] = [header, *rows]
  widths = [max(len(line[i]) for line in lines) for i in range(len(header))]

  def join(line: Sequence[str]) -> str:
    cells = [
      cell.ljust(widths[i]) if i in left else cell.rjust(widths[i])
      for i, cell in enumerate(line)
    ]
    return '  '.join(cells).rstrip()

  rule = '  '.join('-' * width for width in widths)
  return '\n'.join([join(header), rule, *map(join, rows)])


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Formats a Markdown table, the first column to the left."""
  lines = [header, ['---', *['---:'] * (len(header) - 1)], *rows]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def shows_top_5(num_classes: int) -> bool:
  """Whether top-5 accuracy says anything: of five classes it is always 1."""
  return num_classes > 5


def format_results(
  results: Mapping[str, Mapping[str, Any]], with_top_5: bool = True
) -> str:
  """Formats one row for each test; accuracies are in percent.

  A second table follows for the tests with a cue.

  Args:
    results: by the names of the tests.
    with_top_5: whether there is a column for top-5 accuracy.
  """
  accuracies = {'top-1 %': 'top_1_accuracy', 'top-5 %': 'top_5_accuracy'}
  if not with_top_5:
    del accuracies['top-5 %']
  rows = [
    [
      *(name, result['domain']),
      *(f'{100 * result[key]:.2f}' for key in accuracies.values()),
      str(result['num_examples']),
    ]
    for name, result in results.items()
  ]
  table = format_table(['test', 'norms', *accuracies, 'images'], rows)
  biases = bias_rows(results)
  if biases:
    table += f'\n\n{format_table(BIAS_HEADER, biases)}'
  return table


BIAS_HEADER = (
  *('cue conflict', 'cue', 'by shape %', 'by cue %', 'shape bias %', 'images'),
)


def bias_rows(results: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
  """Returns a row for each test with a cue; see `BIAS_HEADER`.

  The answers by shape and by cue are those to images where the two differ.
  """
  rows = []
  for name, result in results.items():
    if 'shape_bias' not in result:
      continue
    bias = result['shape_bias']
    rows.append(
      [
        name,
        result['cue'],
        f'{100 * result["shape_accuracy"]:.2f}',
        f'{100 * result["cue_accuracy"]:.2f}',
        '-' if bias is None else f'{100 * bias:.2f}',
        str(result['num_conflicts']),
      ]
    )
  return rows
