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
  """A Markdown table, the first column to the left."""
  lines = [header, ['---', *['---:'] * (len(header) - 1)], *rows]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def format_results(results: Mapping[str, Mapping[str, Any]]) -> str:
  """One row for each test: name, norms, top-1 and top-5 in percent, images.

  A second table follows for the tests with a cue.
  """
  header = 'test', 'norms', 'top-1 %', 'top-5 %', 'images'
  rows = [
    (
      name,
      result['domain'],
      f'{100 * result["top_1_accuracy"]:.2f}',
      f'{100 * result["top_5_accuracy"]:.2f}',
      str(result['num_examples']),
    )
    for name, result in results.items()
  ]
  conflicts = {k: v for k, v in results.items() if 'shape_bias' in v}
  table = format_table(header, rows)
  return f'{table}\n\n{_format_biases(conflicts)}' if conflicts else table


def _format_biases(results: Mapping[str, Mapping[str, Any]]) -> str:
  """Answers by shape and by cue where they differ, and the shape bias."""
  rows = []
  for name, result in results.items():
    bias = result['shape_bias']
    rows.append(
      (
        name,
        result['cue'],
        f'{100 * result["shape_accuracy"]:.2f}',
        f'{100 * result["cue_accuracy"]:.2f}',
        '-' if bias is None else f'{100 * bias:.2f}',
        str(result['num_conflicts']),
      )
    )
  header = 'cue conflict', 'cue', 'by shape %', 'by cue %', 'shape bias %'
  return format_table([*header, 'images'], rows)
