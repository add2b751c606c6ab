"""Prints every table of the paper, published and measured side by side.

  .venv/bin/python tools/paper_tables.py --runs_dir=runs

The run of the recipe hparams/imagenet/<recipe>.yaml is expected in
`<runs_dir>/<recipe>`, the `--model_dir` of main.py. A cell reads
`published / measured`, in percent; what has not been run, and what the paper
shows without a number, is blank. hparams/paper.yaml holds the numbers.
"""

from collections.abc import Sequence
import json
import os
import sys
from typing import Any, Optional

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import program
from efficientnet_advprop.base import paths
from efficientnet_advprop.evaluation import paper_results
from efficientnet_advprop.evaluation import tables

_FLAGS = program.flag_values(__name__)
_RUNS_DIR = flags.DEFINE_string(
  'runs_dir', None, 'Folder of the runs, if there are any.', flag_values=_FLAGS
)


def measured(
  result: paper_results.Result, runs_dir: Optional[str]
) -> Optional[float]:
  """Reads what the run of a result found, in percent; None without a run."""
  if runs_dir is None:
    return None
  parts = (
    [paths.EVALUATION]
    if result.test == 'main'
    else [paths.EVALUATIONS, result.test]
  )
  path = os.path.join(runs_dir, result.recipe, *parts)
  path = path if result.test == 'main' else f'{path}.json'
  if not os.path.exists(path):
    return None
  with open(path, encoding='utf-8') as file:
    values: dict[str, Any] = json.load(file)
  fraction = values.get('mean_corruption_error', values['top_1_accuracy'])
  return 100 * fraction


def format_results(
  results: Sequence[paper_results.Result], runs_dir: Optional[str]
) -> str:
  """Formats the tables, one below another."""
  parts = []
  for name in dict.fromkeys((r.table, r.title) for r in results):
    cells = {
      (r.row, r.column): r for r in results if (r.table, r.title) == name
    }
    columns = list(dict.fromkeys(column for _, column in cells))
    rows = []
    for row in dict.fromkeys(row for row, _ in cells):
      line = [cells.get((row, column)) for column in columns]
      rows.append([row, *(_cell(r, runs_dir) if r else '' for r in line)])
    text = tables.format_table(['', *columns], rows)
    parts.append(f'{": ".join(name)}\n\n{text}')
  return '\n\n\n'.join(parts)


def _cell(result: paper_results.Result, runs_dir: Optional[str]) -> str:
  numbers = result.published, measured(result, runs_dir)
  texts = ['' if n is None else f'{n:.1f}' for n in numbers]
  return f'{texts[0]:>4} / {texts[1]:4}'


def main(_: Sequence[str]) -> None:
  """Prints the tables."""
  runs_dir = _RUNS_DIR.value
  if runs_dir is not None and not os.path.isdir(runs_dir):
    raise config_lib.ConfigError('runs_dir', runs_dir, 'a folder of runs')
  print(format_results(paper_results.results(), runs_dir))


if __name__ == '__main__':
  program.run('paper_tables', main, _FLAGS)
