"""Runs the tests of a run, each once for the same weights and settings.

A finished test is kept in `evals/<name>.json` and not repeated. A corrupted set
has 75 cases; those that are finished stand in `evals/<name>.part.json` until
all are, so that a killed evaluation goes on where it was.
"""

from collections.abc import Mapping
import functools
import json
import os
from typing import Any, Callable, Optional

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import paths
from efficientnet_advprop.evaluation import corruption_error
from efficientnet_advprop.evaluation import corruptions
from efficientnet_advprop.evaluation import evaluator
from efficientnet_advprop.evaluation import image_sets

Report = Callable[[int, int], None]  # Numbers of images done and in all.


class Runner:
  """Runs tests with one evaluator and writes what they find."""

  def __init__(
    self,
    judge: evaluator.Evaluator,
    config: config_lib.Config,
    folder: str,
    facts: Mapping[str, Any],
    progress: Callable[[str], Report],
    writes: bool = True,
  ):
    """Creates the runner.

    Args:
      judge: evaluates the network.
      config: of the run.
      folder: gets `eval.json` and `evals/`.
      facts: `step` and `weights` of the network, for the results.
      progress: makes what shows the progress of a test, from its name.
      writes: whether this process is the one that writes files.
    """
    self._judge, self._config, self._folder = judge, config, folder
    self._facts, self._progress, self._writes = facts, progress, writes

  def plain(self) -> evaluator.Result:
    """Evaluates `data.eval_split` and writes `eval.json`."""
    split = self._config.data.eval_split
    found = self._judge.evaluate(None, self._progress(f'evaluating {split}'))
    result = self._finished(found)
    self._write(os.path.join(self._folder, paths.EVALUATION), result)
    self._log(split, result)
    return result

  def named(
    self, name: str, test: config_lib.TestConfig, digest: str
  ) -> evaluator.Result:
    """Runs a test, or takes the result that is there, of `evals/<name>.json`.

    Args:
      name: of the test.
      test: says what to do.
      digest: names the weights; a result of others is not taken.

    Returns:
      What `Evaluator.evaluate` returns, `step`, `weights` and `evaluated`:
      what the result depends on. For corrupted sets also `errors`, by
      corruption and severity, and their means; all are fractions.

    Raises:
      ConfigError: a corrupted set is to be made and cannot be.
      DataError: the images are missing, damaged or not those of the set.
    """
    path = os.path.join(self._folder, paths.EVALUATIONS, f'{name}.json')
    evaluated = {'digest': digest, **image_sets.settings(self._config, test)}
    kept = _read(path)
    if kept.get('evaluated') == evaluated:
      logging.info('%s: evaluated before, see %s', name, path)
      return kept
    if image_sets.is_corrupted(test):
      found = self._corrupted(name, test, evaluated)
    else:
      report = self._progress(f'evaluating {name}')
      found = self._judge.evaluate(test, report)
    result = {**self._finished(found), 'evaluated': evaluated}
    self._write(path, result)
    self._log(name, result)
    return result

  def _finished(self, found: evaluator.Result) -> evaluator.Result:
    facts = dict(self._facts)
    return {'step': facts.pop('step'), **found, **facts}

  def _write(self, path: str, result: evaluator.Result) -> None:
    if self._writes:
      evaluator.write_result(path, result)

  def _log(self, name: str, result: evaluator.Result) -> None:
    logging.info(
      '%s at step %s: top-1 %.4f, top-5 %.4f, loss %.4f (%d images)',
      name,
      result['step'],
      result['top_1_accuracy'],
      result['top_5_accuracy'],
      result['loss'],
      result['num_examples'],
    )

  def _corrupted(
    self,
    name: str,
    test: config_lib.TestConfig,
    evaluated: Mapping[str, Any],
  ) -> evaluator.Result:
    """Evaluates all corruptions and severities that are not done yet."""
    directory = test.dir or self._make_corrupted(name, test)
    cases = image_sets.find_corrupted(self._config, test, directory)
    path = os.path.join(self._folder, paths.EVALUATIONS, f'{name}.part.json')
    part = _read(path)
    if part.get('evaluated') != evaluated:
      part = {'evaluated': evaluated, 'cases': {}}
    done = part['cases']
    left = [case for case in cases if _key(*case) not in done]
    report = self._progress(f'evaluating {name}')
    for number, case in enumerate(left):
      images = cases[case]()
      shown = functools.partial(_shifted, report, number, len(left))
      done[_key(*case)] = self._judge.evaluate(test, shown, images)
      self._write(path, part)
      self._log_corruption(name, case[0], done)
    if self._writes and tf.io.gfile.exists(path):
      tf.io.gfile.remove(path)
    return _summary(done, test)

  def _make_corrupted(self, name: str, test: config_lib.TestConfig) -> str:
    """Corrupts `data.eval_split`, once; returns the folder."""
    directory = os.path.join(self._folder, 'corrupted', name)
    if '://' in directory:
      allowed = 'a folder that tools/corrupt.py made, as model_dir is remote'
      raise config_lib.ConfigError(f'eval.tests.{name}.dir', None, allowed)
    corruptions.write_corrupted(
      self._config,
      directory,
      num_images=test.num_images,
      num_workers=os.cpu_count() or 1,
      report=lambda done, total: logging.info(
        '%s: %d of %d corruptions made', name, done, total
      ),
    )
    return directory

  def _log_corruption(
    self, name: str, corruption: str, done: Mapping[str, evaluator.Result]
  ) -> None:
    keys = [_key(corruption, s) for s in corruptions.SEVERITIES]
    if all(key in done for key in keys):
      errors = [1 - done[key]['top_1_accuracy'] for key in keys]
      mean = sum(errors) / len(errors)
      logging.info(
        '%s: %s: error %.4f, %d of %d cases done',
        *(name, corruption, mean, len(done)),
        len(corruptions.NAMES) * len(corruptions.SEVERITIES),
      )


def _key(corruption: str, severity: int) -> str:
  return f'{corruption} {severity}'


def _shifted(
  report: Report, number: int, cases: int, done: int, total: int
) -> None:
  """Reports a case as a part of all cases."""
  report(number * total + done, cases * total)


def _summary(
  done: Mapping[str, evaluator.Result], test: config_lib.TestConfig
) -> evaluator.Result:
  """One result of all cases, which hold equally many images."""
  errors = {
    name: {
      severity: 1 - done[_key(name, severity)]['top_1_accuracy']
      for severity in corruptions.SEVERITIES
    }
    for name in corruptions.NAMES
  }
  results = list(done.values())
  means = {
    key: sum(result[key] for result in results) / len(results)
    for key in ('loss', 'top_1_accuracy', 'top_5_accuracy')
  }
  summary: evaluator.Result = {
    'num_examples': sum(result['num_examples'] for result in results),
    **means,
    'domain': test.domain,
    'errors': {  # As JSON has it, whose keys are strings.
      name: {str(severity): error for severity, error in row.items()}
      for name, row in errors.items()
    },
    'mean_errors': corruption_error.mean_errors(errors),
    'unnormalized_mean_error': corruption_error.unnormalized_mean_error(errors),
  }
  if test.kind == 'imagenet_c':  # AlexNet has a figure for no other set.
    summary['corruption_errors'] = corruption_error.corruption_errors(errors)
    summary['mean_corruption_error'] = corruption_error.mean_corruption_error(
      errors
    )
  return summary


def _read(path: str) -> dict[str, Any]:
  """A result that is there already; empty if it is not, or is damaged."""
  if not tf.io.gfile.exists(path):
    return {}
  try:
    with tf.io.gfile.GFile(path) as file:
      values: Optional[Any] = json.loads(file.read())
  except ValueError:
    values = None
  return values if isinstance(values, dict) else {}
