"""A report on the tests of one run, or of several side by side."""

from collections.abc import Mapping, Sequence
import os
import platform
from typing import NamedTuple, Optional

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import files
from efficientnet_advprop.evaluation import corruptions
from efficientnet_advprop.evaluation import evaluator
from efficientnet_advprop.evaluation import mistakes
from efficientnet_advprop.evaluation import tables

PLAIN = 'main'  # The plain test's name among the names of tests.
FILE_NAME = 'report.md'

_CLASSES, _MISTAKES = 'classes.csv', 'mistakes.png'
_MAX_ROWS, _MAX_PAIRS = 20, 10  # In tables of classes.
_WIDTH, _HEIGHT = 9.0, 4.0  # Of plots, in inches.


class Run(NamedTuple):
  """One network and its results.

  Attributes:
    name: for tables and plots.
    config: of the run.
    results: of the tests by their names, `PLAIN` for the plain one; see
      `Session.run_plain` and `Session.run_test`.
    failures: why tests failed, by their names.
    answers: to the images of the plain test; None if they are not known.
    class_names: one for each class.
  """

  name: str
  config: config_lib.Config
  results: Mapping[str, evaluator.Result]
  failures: Mapping[str, str] = {}
  answers: Optional[mistakes.Answers] = None
  class_names: Sequence[str] = ()


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
  parts += _biases(runs)
  for run in runs:
    parts += _classes(run, directory)
  for name in _names(runs):
    shown = [run for run in runs if 'errors' in run.results.get(name, {})]
    if shown:
      parts += [f'## {name}: errors, %', *_corrupted(shown, name, directory)]
  for run in runs:
    if run.failures:
      lines = [f'- {name}: {why}' for name, why in run.failures.items()]
      parts += [f'## Tests of {run.name} that failed', '\n'.join(lines)]
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
    numbers = [str(r['num_examples']) if r else '-' for r in results]
    images = numbers[0] if len(set(numbers)) == 1 else ' / '.join(numbers)
    rows.append([name, known['domain'], images, *cells])
  header = ['test', 'norms', 'images', *(run.name for run in runs)]
  return tables.markdown(header, rows)


def _biases(runs: Sequence[Run]) -> list[str]:
  """The table of tests with a cue, a row for each test and run."""
  rows = [
    [*([run.name] if len(runs) > 1 else []), *row]
    for run in runs
    for row in tables.bias_rows(run.results)
  ]
  if not rows:
    return []
  header = [*(['network'] if len(runs) > 1 else []), *tables.BIAS_HEADER]
  return ['## Shape bias', tables.markdown(header, rows)]


def _classes(run: Run, directory: str) -> list[str]:
  """Accuracy by class, confused pairs, and the picture of worst mistakes."""
  answers, names = run.answers, run.class_names
  if answers is None:
    return []
  rows = mistakes.class_rows(answers.counts, names)
  shown = rows[:_MAX_ROWS]
  mistakes.write_csv(os.path.join(directory, _CLASSES), answers, names)
  title = '## Accuracy by class'
  if len(shown) < len(rows):
    title += f': the {len(shown)} least accurate of {len(rows)}'
  parts = [
    title,
    tables.markdown(
      ['class', 'images', 'top-1 %'],
      [[r.name, str(r.images), _percent(r.accuracy)] for r in shown],
    ),
    f'[{_CLASSES}]({_CLASSES}) lists all classes.',
  ]
  pairs = mistakes.confused_pairs(answers.counts, names, _MAX_PAIRS)
  if pairs:
    parts += [
      '## Most confused pairs',
      tables.markdown(
        ['class', 'taken for', 'images', 'of the class, %'],
        [[p.label, p.answer, str(p.images), _percent(p.share)] for p in pairs],
      ),
    ]
  path = os.path.join(directory, _MISTAKES)
  if mistakes.draw(path, run.config, answers, names):
    parts += [
      '## Worst mistakes',
      'The images of whose wrong class the network is surest.',
      f'![Worst mistakes]({_MISTAKES})',
    ]
  return parts


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
  for run in runs:
    strengths = run.results[name].get('evaluated', {}).get('strengths')
    if strengths:
      parts.append(f'{run.name}: strengths of `{strengths}`.')
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
