"""A whole suite: its images, its runs and its report, in the user's folders."""

import os
import signal
import statistics
from typing import Optional

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.data import sources
from efficientnet_advprop.evaluation import tables
from efficientnet_advprop.training import stopping
from tools.suites import datasets
from tools.suites import report as report_lib
from tools.suites import runner as runner_lib
from tools.suites import suite as suite_lib
from tools.suites import training

_ROOT = os.path.normpath(os.path.join(os.path.dirname(__file__), *['..'] * 2))


class Place:
  """A suite, and the folders of its work and of its results."""

  def __init__(
    self,
    path: str,
    work_dir: Optional[str],
    output_dir: Optional[str],
    init_checkpoint: Optional[str] = None,
  ):
    """Reads the suite.

    Args:
      path: of the suite's YAML file.
      work_dir: folder for images and unfinished runs; None for runs/<suite>.
      output_dir: folder for results and report; None for `work_dir`.
      init_checkpoint: the same weights as the suite's `train.init_checkpoint`,
        from another place.

    Raises:
      ConfigError: the file is missing or wrong, or its runs start from random
        weights and `init_checkpoint` is given.
    """
    suite = suite_lib.load(path)
    name = suite.name
    if init_checkpoint and suite.config.train.init_checkpoint is None:
      allowed = f'none, because the runs of {path} start from random weights'
      raise config_lib.ConfigError('init_checkpoint', init_checkpoint, allowed)
    self._init_checkpoint = init_checkpoint
    self._path = path
    self._work_dir = work_dir or os.path.join('runs', name)
    self._output_dir = output_dir or self._work_dir
    self._results = os.path.join(self._output_dir, f'{name}.jsonl')
    # Lines that are there decide on the settings of later stages.
    self._suite = suite_lib.load(path, runner_lib.read_lines(self._results))

  def make_run(self, name: str) -> None:
    """Makes one run, `<cell>:<seed>`, in this process."""
    training.run_in_this_process(
      self._suite, name, self._work_dir, self._init_checkpoint
    )

  def make_all(self, command: list[str], data_dir: str, jobs: int) -> None:
    """Makes the runs that are missing.

    Args:
      command: starts reproduce.py, whose --run makes one run.
      data_dir: the images; empty for the embedded data set.
      jobs: how many runs are made at a time.

    Raises:
      StoppedError: SIGTERM or Ctrl-C stopped the suite.
    """
    os.makedirs(self._output_dir, exist_ok=True)
    data_dir = data_dir or sources.data_dir(config_lib.DataConfig())
    directory = os.path.join(self._work_dir, 'data')
    datasets.prepare(self._suite, data_dir, directory, jobs)
    for number in (signal.SIGTERM, signal.SIGINT):
      signal.signal(number, _stop)
    command = [*command, f'--suite={self._path}']
    command += [f'--work_dir={self._work_dir}']
    command += [f'--output_dir={self._output_dir}']
    if self._init_checkpoint:
      command += [f'--init_checkpoint={self._init_checkpoint}']
    while True:
      runner = runner_lib.Runner(
        self._suite, self._results, self._work_dir, command
      )
      runner.run_all(jobs)
      if not self._suite.waiting:
        break
      # The choice that later stages wait for can be made now.
      self._suite = suite_lib.load(self._path, runner.results.values())

  def report(self, data_dir: str) -> str:
    """Writes the report and the plots; returns the report's path."""
    os.makedirs(self._output_dir, exist_ok=True)
    results = runner_lib.read_results(self._results, self._suite)
    suite = os.path.relpath(self._path, _ROOT)
    command = f'.venv/bin/python tools/reproduce.py --suite={suite}'
    if data_dir:
      command += f' --data_dir=<{self._suite.name}>'
    return report_lib.write(self._suite, results, self._output_dir, command)

  def comparison(self, path: str) -> str:
    """Formats the mean accuracies of these results and of others.

    Args:
      path: a file with the lines of other runs of the suite.

    Returns:
      A table with a row for each cell and test; it holds the means over
      seeds and the numbers of runs.

    Raises:
      DataError: the file has no line of a cell of this suite.
    """
    cells = dict.fromkeys(run.cell for run in self._suite.runs)
    ours, theirs = (
      _means(runner_lib.read_lines(file)) for file in (self._results, path)
    )
    keys = [key for key in {**ours, **theirs} if key[0] in cells]
    if not any(key in theirs for key in keys):
      raise errors.DataError(f'{path}: no results of this suite')
    keys.sort(key=lambda key: list(cells).index(key[0]))
    rows = [
      [*key, *(found.get(key, 'none') for found in (ours, theirs))]
      for key in keys
    ]
    return tables.format_table(['cell', 'test', 'these', path], rows)


def _means(lines: list[dict]) -> dict[tuple[str, str], str]:
  """Returns `mean (number of runs)` by cell and test, in percent."""
  values: dict[tuple[str, str], dict[int, float]] = {}
  for line in lines:
    for test, accuracy in line['accuracies'].items():
      values.setdefault((line['cell'], test), {})[line['seed']] = accuracy
  return {
    key: f'{statistics.mean(by_seed.values()):.2f} ({len(by_seed)})'
    for key, by_seed in values.items()
  }


def _stop(number: int, frame: object) -> None:
  del number, frame
  raise stopping.StoppedError('stopped; the same command resumes it')
