"""A report on the tests of one run, or of several side by side."""

from collections.abc import Mapping, Sequence
import os
import platform
from typing import Any, NamedTuple

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import files
from efficientnet_advprop.evaluation import corruptions
from efficientnet_advprop.evaluation import evaluator
from efficientnet_advprop.evaluation import paper_results
from efficientnet_advprop.evaluation import tables

PLAIN = 'main'  # Stands for the plain test among the names of tests.
FILE_NAME = 'report.md'

_WIDTH, _HEIGHT = 9.0, 4.0  # Of plots, in inches.
# The paper's tables of the sets that need a name of their own.
_PAPER_TABLES = ('Table 1', 'Table 4')
_PAPER_SETS = {
  'imagenet_c': 'ImageNet-C, mCE (lower is better)',
  'imagenet_a': 'ImageNet-A, top-1',
  'stylized_imagenet': 'Stylized-ImageNet, top-1',
}


class Run(NamedTuple):
  """What is known of one network.

  Attributes:
    name: for tables and plots.
    config: of the run.
    results: of the tests by their names, `PLAIN` for the plain one; see
      `Evaluator.evaluate` and `Runner.named`.
  """

  name: str
  config: config_lib.Config
  results: Mapping[str, evaluator.Result]


def write(runs: Sequence[Run], directory: str) -> str:
  """Writes `report.md` and a plot for each corrupted set.

  Without Matplotlib the report comes without plots, and a log line says so.

  Args:
    runs: at least one.
    directory: for the files.

  Returns:
    The path of the report.
  """
  tf.io.gfile.makedirs(directory)
  parts = [f'# Tests of {" and ".join(run.name for run in runs)}', _facts(runs)]
  parts += ['## Top-1 accuracy, %', _accuracies(runs)]
  for name in _names(runs):
    shown = [run for run in runs if 'errors' in run.results.get(name, {})]
    if shown:
      parts += [f'## {name}: errors, %', *_corrupted(shown, name, directory)]
  parts += _against_the_paper(runs)
  path = os.path.join(directory, FILE_NAME)
  files.write(path, '\n\n'.join(parts) + '\n')
  return path


def _names(runs: Sequence[Run]) -> list[str]:
  """The names of the tests that some run has, in their order."""
  return list(dict.fromkeys(name for run in runs for name in run.results))


def _percent(fraction: float) -> str:
  return f'{100 * fraction:.2f}'


def _facts(runs: Sequence[Run]) -> str:
  rows = []
  for run in runs:
    first = next(iter(run.results.values()), {})
    config = run.config
    rows.append(
      [
        *(run.name, config.model.name, str(config.model.image_size)),
        *(config.train.method, str(config.train.seed)),
        *(str(first.get('step')), str(first.get('weights'))),
      ]
    )
  header = 'network', 'model', 'pixels', 'method', 'seed', 'step', 'weights'
  versions = f'TensorFlow {tf.__version__}, Python {platform.python_version()}.'
  return f'{tables.markdown(header, rows)}\n\n{versions}'


def _accuracies(runs: Sequence[Run]) -> str:
  rows = []
  for name in _names(runs):
    results = [run.results.get(name) for run in runs]
    known = next(result for result in results if result)
    cells = [_percent(r['top_1_accuracy']) if r else '' for r in results]
    rows.append([name, known['domain'], str(known['num_examples']), *cells])
  header = ['test', 'norms', 'images', *(run.name for run in runs)]
  return tables.markdown(header, rows)


def _means(run: Run, name: str) -> Mapping[str, float]:
  """CE of each corruption where there is one, else its mean error."""
  result = run.results[name]
  if 'corruption_errors' in result:
    return result['corruption_errors']
  return result['mean_errors']


def _overall(run: Run, name: str) -> tuple[str, float]:
  """The one number of a corrupted set and what it is called."""
  result = run.results[name]
  if 'mean_corruption_error' in result:
    return 'mCE', result['mean_corruption_error']
  return 'mean error', result['unnormalized_mean_error']


def _corrupted(runs: Sequence[Run], name: str, directory: str) -> list[str]:
  """The tables of a corrupted set and, if it can be drawn, its plot."""
  parts = []
  what, _ = _overall(runs[0], name)
  if what == 'mCE':
    parts.append(
      "CE is a corruption's mean error over AlexNet's; mCE its mean."
    )
  else:
    parts.append(
      'Means over the severities; AlexNet has no figures for this set, so that'
      ' there is no mCE.'
    )
  rows = [
    [corruption, *(_percent(_means(run, name)[corruption]) for run in runs)]
    for corruption in corruptions.NAMES
  ]
  last = [_percent(_overall(run, name)[1]) for run in runs]
  rows.append([f'**{what}**', *(f'**{cell}**' for cell in last)])
  kind = 'CE' if what == 'mCE' else 'mean error'
  parts.append(
    tables.markdown(['corruption', *(f'{r.name}, {kind}' for r in runs)], rows)
  )
  file_name = f'{name}.png'
  if _plot(runs, name, os.path.join(directory, file_name)):
    parts.append(f'![{name}]({file_name})')
  for run in runs:
    rows = [
      [corruption, *(_percent(e) for _, e in sorted(row.items()))]
      for corruption, row in run.results[name]['errors'].items()
    ]
    severities = [f'severity {s}' for s in corruptions.SEVERITIES]
    parts.append(tables.markdown([run.name, *severities], rows))
  return parts


def _plot(runs: Sequence[Run], name: str, path: str) -> bool:
  """Draws bars of each corruption, one for each run; False if it cannot."""
  try:
    from matplotlib import figure as figure_lib  # Slow to import, and optional.
  except ImportError as error:
    logging.warning(
      'No plot of %s (%s): pip install -r requirements-results.txt', name, error
    )
    return False
  figure = figure_lib.Figure(figsize=(_WIDTH, _HEIGHT), layout='constrained')
  axes = figure.add_subplot()
  width = 0.8 / len(runs)
  for number, run in enumerate(runs):
    what, overall = _overall(run, name)
    label = f'{run.name}: {what} {_percent(overall)}'
    values = [100 * _means(run, name)[c] for c in corruptions.NAMES]
    places = [
      place + (number - (len(runs) - 1) / 2) * width
      for place in range(len(values))
    ]
    axes.bar(places, values, width, label=label, color=f'C{number}')
    axes.axhline(100 * overall, color=f'C{number}', linewidth=0.8, alpha=0.7)
  labels = [corruption.replace('_', ' ') for corruption in corruptions.NAMES]
  axes.set_xticks(range(len(labels)), labels, rotation=40, ha='right')
  what = 'CE' if _overall(runs[0], name)[0] == 'mCE' else 'error'
  axes.set_ylabel(f'{what}, % (lower is better)')
  axes.set_title(f'{name}: means over the severities', loc='left')
  axes.grid(axis='y', alpha=0.3)
  axes.set_axisbelow(True)
  figure.legend(loc='outside upper right')
  with tf.io.gfile.GFile(path, 'wb') as file:
    figure.savefig(file, dpi=120, format='png')
  return True


def _against_the_paper(runs: Sequence[Run]) -> list[str]:
  """The paper's Tables 1 and 4 for the networks, beside what was measured."""
  parts: list[str] = []
  for run in runs:
    rows = []
    for test, label in _PAPER_SETS.items():
      found = [
        _percent(_score(result))
        for result in run.results.values()
        if _kind(result) == test
      ]
      row: dict[str, Any] = {'set': label, 'this run': ', '.join(found)}
      for number in paper_results.results():
        key = number.table, number.test, number.column
        in_table = key[0] in _PAPER_TABLES and key[1:] == (
          *(test, run.config.model.name),
        )
        if in_table and number.published is not None:
          row[f'{number.row} (paper)'] = f'{number.published:.1f}'
      if found and len(row) > 2:
        rows.append(row)
    if rows:
      header = list(dict.fromkeys(key for row in rows for key in row))
      cells = [[row.get(key, '') for key in header] for row in rows]
      parts += [
        f'## {run.name} against the Tables 1 and 4 of the paper, %',
        tables.markdown(header, cells),
      ]
  return parts


def _kind(result: evaluator.Result) -> str:
  return result.get('evaluated', {}).get('test', {}).get('kind', '')


def _score(result: evaluator.Result) -> float:
  if 'mean_corruption_error' in result:
    return result['mean_corruption_error']
  return result['top_1_accuracy']
