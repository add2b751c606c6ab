"""All tests of one network: run each once, keep its result, report on all.

The plain test writes `eval.json`. A named test of `eval.tests` is kept in
`evals/<name>.json` and is not repeated while weights and settings stay the
same. A corrupted set has 75 cases; those that are finished are kept in
`evals/<name>.part.json`, so that a killed evaluation resumes where it was.
"""

from collections.abc import Mapping
import functools
import json
import os
from typing import Any, Callable, Optional

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import devices
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import files
from efficientnet_advprop.base import paths
from efficientnet_advprop.base import progress
from efficientnet_advprop.data import sources
from efficientnet_advprop.evaluation import corrupted_sets
from efficientnet_advprop.evaluation import corruption_error
from efficientnet_advprop.evaluation import corruptions
from efficientnet_advprop.evaluation import evaluator
from efficientnet_advprop.evaluation import image_sets
from efficientnet_advprop.evaluation import mistakes
from efficientnet_advprop.evaluation import report
from efficientnet_advprop.evaluation import tables


class Session:
  """The tests of one network, their results and the report on them."""

  def __init__(
    self,
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    network: evaluator.Network,
    folder: str,
    weights: Optional[str] = None,
  ):
    """Creates the session.

    Args:
      config: of the run.
      strategy: under whose scope the network was created.
      network: its present weights count at each test.
      folder: gets `eval.json` and `evals/`.
      weights: which weights of the run the network has, for the results; None
        for `eval.weights`.
    """
    self._config, self._folder = config, folder
    self._evaluator = evaluator.Evaluator(config, strategy, network)
    self._weights = weights or config.eval.weights
    names = sources.label_names(config.data)
    self._class_names = mistakes.class_names(names, config.data.num_classes)
    # Of the last plain test.
    self._answers: Optional[mistakes.Answers] = None
    self._is_writer = devices.is_chief(strategy)
    self._has_workers = devices.has_workers(strategy)
    self._results: dict[str, evaluator.Result] = {}
    # Which tests failed, and why, in a line.
    self.failures: dict[str, str] = {}

  def run_plain(self, step: Optional[int]) -> evaluator.Result:
    """Evaluates `data.eval_split` and writes `eval.json`.

    Args:
      step: after which the network is what it is; None if that is unknown.

    Returns:
      What `Evaluator.evaluate` returns, with `step` and `weights`.

    Raises:
      DataError: the images are missing or damaged.
    """
    split = self._config.data.eval_split
    shown = progress.Progress(f'evaluating {split}')
    answers: list[mistakes.Answers] = []
    found = self._evaluator.evaluate(None, shown, answers=answers)
    (self._answers,) = answers
    result = self._with_facts(step, found)
    self._write(os.path.join(self._folder, paths.EVALUATION), result)
    self._log(split, result)
    self._results[report.PLAIN] = result
    return result

  def check_tests(self) -> None:
    """Checks that the images of all tests are there, before hours of training.

    Raises:
      ConfigError, DataError: a test cannot run; one line names the test, and
        the key that leaves it out.
    """
    self._evaluator.prepare()
    for name, test in self._config.eval.tests.items():
      key = f'eval.tests.{name}'
      try:
        if not image_sets.is_corrupted(test):
          image_sets.check_first(self._evaluator.find(test), test)
          continue
        image_sets.check_corrupted(self._config, test)
        if test.dir is None:
          self._folder_of_corrupted(name)
      except (errors.ConfigError, errors.DataError) as error:
        raise errors.DataError(
          f'test {name!r}: {error}; {key}=null leaves it out'
        ) from error

  def run_named(self, step: Optional[int], digest: str) -> None:
    """Runs all of `eval.tests` and writes the report.

    A test that fails over its data is logged as an error and kept in
    `failures`; the others run all the same.

    Args:
      step: as for `run_plain`.
      digest: names the weights; a kept result of other weights is not taken.
    """
    for name, test in self._config.eval.tests.items():
      try:
        self._results[name] = self.run_test(name, test, step, digest)
      except (errors.ConfigError, errors.DataError) as error:
        if self._has_workers:
          raise  # The others would wait for this one in the next test.
        self._results.pop(name, None)
        self.failures[name] = str(error)
        logging.error('The test %s failed: %s', name, error)
    if self._is_writer:
      run = report.Run(
        os.path.basename(os.path.abspath(self._folder)),
        self._config,
        self._results,
        self.failures,
        self._answers,
        self._class_names,
      )
      report.write([run], os.path.join(self._folder, paths.EVALUATIONS))

  def run_test(
    self,
    name: str,
    test: config_lib.NamedTestConfig,
    step: Optional[int],
    digest: str,
  ) -> evaluator.Result:
    """Runs one test, or reads its kept result from `evals/<name>.json`.

    Args:
      name: of the test.
      test: what it evaluates.
      step: as for `run_plain`.
      digest: as for `run_named`.

    Returns:
      What `run_plain` returns, with `evaluated`: what the result depends on.
      For corrupted sets also `errors`, by corruption and severity, and their
      means; all are fractions.

    Raises:
      ConfigError: a corrupted set would have to be made and cannot be.
      DataError: images are missing, damaged or not those of the set.
    """
    path = os.path.join(self._folder, paths.EVALUATIONS, f'{name}.json')
    evaluated = {'digest': digest, **image_sets.settings(self._config, test)}
    kept = _read(path)
    if kept.get('evaluated') == evaluated:
      logging.info('%s: evaluated before, see %s', name, path)
      return kept
    if image_sets.is_corrupted(test):
      found = self._run_corrupted(name, test, evaluated)
    else:
      shown = progress.Progress(f'evaluating {name}')
      found = self._evaluator.evaluate(test, shown)
    result = {**self._with_facts(step, found), 'evaluated': evaluated}
    self._write(path, result)
    self._log(name, result)
    return result

  def table(self) -> str:
    """Formats the results as text, a row for each test."""
    return tables.format_results(self._results, self._shows_top_5)

  @property
  def _shows_top_5(self) -> bool:
    return tables.shows_top_5(self._config.data.num_classes)

  def _log(self, name: str, result: evaluator.Result) -> None:
    top_5 = f'top-5 {result["top_5_accuracy"]:.4f}, '
    logging.info(
      '%s at step %s: top-1 %.4f, %sloss %.4f (%d images)',
      name,
      result['step'],
      result['top_1_accuracy'],
      top_5 if self._shows_top_5 else '',
      result['loss'],
      result['num_examples'],
    )

  @property
  def report_path(self) -> str:
    """The path of the report that `run_named` writes."""
    return os.path.join(self._folder, paths.EVALUATIONS, report.FILE_NAME)

  def _with_facts(
    self, step: Optional[int], found: evaluator.Result
  ) -> evaluator.Result:
    return {'step': step, **found, 'weights': self._weights}

  def _write(self, path: str, result: evaluator.Result) -> None:
    if self._is_writer:
      tf.io.gfile.makedirs(os.path.dirname(path))
      files.write_json(path, result, indent=2)

  def _run_corrupted(
    self,
    name: str,
    test: config_lib.NamedTestConfig,
    evaluated: Mapping[str, Any],
  ) -> evaluator.Result:
    """Evaluates all corruptions and severities that are not finished yet."""
    directory = test.dir or self._make_corrupted(name, test)
    cases = image_sets.find_corrupted(self._config, test, directory)
    path = os.path.join(self._folder, paths.EVALUATIONS, f'{name}.part.json')
    part = _read(path)
    if part.get('evaluated') != evaluated:
      part = {'evaluated': evaluated, 'cases': {}}
    done = part['cases']
    left = [case for case in cases if _key(*case) not in done]
    shown = progress.Progress(f'evaluating {name}')
    for number, case in enumerate(left):
      images = cases[case]()
      show_case = functools.partial(_show_case, shown, number, len(left))
      done[_key(*case)] = self._evaluator.evaluate(test, show_case, images)
      self._write(path, part)
      _log_corruption(name, case[0], done)
    if self._is_writer and tf.io.gfile.exists(path):
      tf.io.gfile.remove(path)
    return _summary(done, test)

  def _folder_of_corrupted(self, name: str) -> str:
    size = self._config.model.image_size
    strengths = corruptions.strengths_for(size)
    directory = os.path.join(self._folder, 'corrupted', f'{name}-{strengths}')
    if '://' in directory:
      allowed = 'a folder that tools/corrupt.py made, as model_dir is remote'
      raise config_lib.ConfigError(f'eval.tests.{name}.dir', None, allowed)
    return directory

  def _make_corrupted(self, name: str, test: config_lib.NamedTestConfig) -> str:
    """Corrupts `data.eval_split`, once; returns the folder."""
    directory = self._folder_of_corrupted(name)
    corrupted_sets.write(
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
  name: str, corruption: str, done: Mapping[str, evaluator.Result]
) -> None:
  """Logs the mean error of a corruption whose severities are all finished."""
  keys = [_key(corruption, s) for s in corruptions.SEVERITIES]
  if all(key in done for key in keys):
    wrong = [1 - done[key]['top_1_accuracy'] for key in keys]
    mean = sum(wrong) / len(wrong)
    logging.info(
      '%s: %s: error %.4f, %d of %d cases done',
      *(name, corruption, mean, len(done)),
      len(corruptions.NAMES) * len(corruptions.SEVERITIES),
    )


def _key(corruption: str, severity: int) -> str:
  return f'{corruption} {severity}'


def _show_case(
  shown: Callable[[int, int], None],
  number: int,
  cases: int,
  done: int,
  total: int,
) -> None:
  """Shows the progress of a case as a part of all cases."""
  shown(number * total + done, cases * total)


def _summary(
  done: Mapping[str, evaluator.Result], test: config_lib.NamedTestConfig
) -> evaluator.Result:
  """Joins all cases, which hold equally many images, into one result."""
  wrong = {
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
      for name, row in wrong.items()
    },
    'mean_errors': corruption_error.mean_errors(wrong),
    'unnormalized_mean_error': corruption_error.unnormalized_mean_error(wrong),
  }
  if test.kind == 'imagenet_c':  # AlexNet has a figure for no other set.
    summary['corruption_errors'] = corruption_error.corruption_errors(wrong)
    summary['mean_corruption_error'] = corruption_error.mean_corruption_error(
      wrong
    )
  return summary


def _read(path: str) -> dict[str, Any]:
  """Reads a kept result; empty if there is none, or if it is damaged."""
  if not tf.io.gfile.exists(path):
    return {}
  try:
    with tf.io.gfile.GFile(path) as file:
      values: Optional[Any] = json.loads(file.read())
  except ValueError:
    values = None
  return values if isinstance(values, dict) else {}
