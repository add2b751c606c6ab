"""Makes the missing runs of a suite, each in a process of one thread.

A run that ends leaves its line in its folder; the suite takes it into the file
of results and removes the folder. So whatever is killed, no run that has ended
is made again, and every other run resumes.
"""

import concurrent.futures
import json
import os
import shutil
import subprocess
import threading
from typing import Any, Optional

from absl import logging

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import files
from efficientnet_advprop.base import paths
from efficientnet_advprop.base import progress
from tools.suites import suite as suite_lib

_Key = tuple[str, int]
_Line = dict[str, Any]

_LINE_FILE = 'result.json'
_CURVE_FILE = 'curve.json'
_STATUS_SECONDS = 60.0
# TensorFlow reads these when it starts.
_ONE_THREAD = {
  'TF_NUM_INTRAOP_THREADS': '1',
  'TF_NUM_INTEROP_THREADS': '1',
  'OMP_NUM_THREADS': '1',
}


def model_dir(work_dir: str, run: suite_lib.Run) -> str:
  """Returns a run's folder; checkpoints of other settings are never in it."""
  return os.path.join(work_dir, f'{run.cell}-{run.seed}-{run.digest}')


def leave_line(directory: str, line: _Line) -> None:
  """Leaves the line of a run that has ended in its folder."""
  path = os.path.join(directory, _LINE_FILE)
  files.write_json(path, line)


class Curve:
  """Accuracies during a run, which outlive its process.

  Attributes:
    points: pairs of epoch and accuracy in percent, in the order of epochs.
    seconds: of CPU time that this process has spent on them.
  """

  def __init__(self, directory: str):
    """Reads what an earlier process of the run left in its folder."""
    self._path = os.path.join(directory, _CURVE_FILE)
    self.points: list[list[float]] = []
    self.seconds = 0.0
    if os.path.exists(self._path):
      with open(self._path, encoding='utf-8') as file:
        self.points = json.load(file)

  def add(self, epoch: float, accuracy: float, seconds: float) -> None:
    """Adds a point, or replaces that of an evaluation made again."""
    others = [point for point in self.points if point[0] != epoch]
    self.points = sorted([*others, [epoch, accuracy]])
    self.seconds += seconds
    files.write_json(self._path, self.points)


def read_line(directory: str) -> Optional[_Line]:
  """Reads the line that a run left in its folder, if it has ended."""
  path = os.path.join(directory, _LINE_FILE)
  if not os.path.exists(path):
    return None
  with open(path, encoding='utf-8') as file:
    return json.load(file)


def read_lines(path: str) -> list[_Line]:
  """Reads every whole line of a file of results, which need not exist."""
  lines = []
  if os.path.exists(path):
    with open(path, encoding='utf-8') as file:
      for text in file:
        try:
          lines.append(json.loads(text))
        except ValueError:
          continue  # The suite was killed in the middle of it.
  return lines


def read_results(path: str, suite: suite_lib.Suite) -> dict[_Key, _Line]:
  """Reads the lines of finished runs whose settings are still the suite's.

  Args:
    path: a file with a line of JSON for each run; it need not exist.
    suite: whose runs count.

  Returns:
    From (cell, seed) to the run's line.
  """
  digests = {(run.cell, run.seed): run.digest for run in suite.runs}
  results = {}
  for line in read_lines(path):
    key = line['cell'], line['seed']
    if digests.get(key) == line['digest']:
      results[key] = line
  return results


class Runner:
  """Makes the runs that have no line yet.

  Attributes:
    results: the lines of all runs that have ended, by (cell, seed).
  """

  def __init__(
    self, suite: suite_lib.Suite, path: str, work_dir: str, command: list[str]
  ):
    """Takes the lines that are there.

    Args:
      suite: whose runs are made.
      path: of the file of results.
      work_dir: for the folders of runs.
      command: what makes a run; `--run=<cell>:<seed>` is added.
    """
    self._suite, self._path, self._work_dir = suite, path, work_dir
    self._command = command
    self.results = read_results(path, suite)
    _end_last_line(path)
    for run in suite.runs:  # The suite was killed before it took their lines.
      line = read_line(self._model_dir(run))
      if line is not None:
        self._take(run, line)
    self._at_work: dict[_Key, tuple[suite_lib.Run, subprocess.Popen]] = {}
    self._ends = False
    # Held where runs begin, so that none begins unseen while all are ended.
    self._lock = threading.Lock()

  @property
  def missing(self) -> list[suite_lib.Run]:
    """The runs that have no line yet."""
    runs = self._suite.runs
    return [run for run in runs if (run.cell, run.seed) not in self.results]

  def run_all(self, jobs: int) -> None:
    """Makes them, `jobs` at a time.

    If the suite is stopped, or a run fails, all others save and end.

    Raises:
      ConfigError: a run failed; stderr says why.
    """
    total = len(self._suite.runs)
    if self.missing:
      logging.info('%d of %d runs are missing', len(self.missing), total)
    else:
      logging.info('all %d runs are in %s', total, self._path)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
      waiting = {pool.submit(self._run, run) for run in self.missing}
      try:
        while waiting:
          done, waiting = concurrent.futures.wait(
            waiting, _STATUS_SECONDS, concurrent.futures.FIRST_COMPLETED
          )
          for future in done:
            run, line = future.result()
            self._take(run, line)
            self._log_end(line, jobs)
          if not done:
            self._log_status()
      except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        self._end()
        raise

  def _end(self) -> None:
    """Lets no further run begin; those at work save and end."""
    with self._lock:
      self._ends = True
      for _, process in self._at_work.values():
        process.terminate()

  def _model_dir(self, run: suite_lib.Run) -> str:
    return model_dir(self._work_dir, run)

  def _run(self, run: suite_lib.Run) -> tuple[suite_lib.Run, _Line]:
    key = run.cell, run.seed
    with self._lock:
      if self._ends:
        raise concurrent.futures.CancelledError
      process = subprocess.Popen(
        [*self._command, f'--run={run.cell}:{run.seed}'],
        env={**os.environ, **_ONE_THREAD},
      )
      self._at_work[key] = run, process
    process.wait()
    with self._lock:
      del self._at_work[key]
    line = read_line(self._model_dir(run))
    if process.returncode or line is None:
      raise config_lib.ConfigError(
        'run', f'{run.cell}:{run.seed}', 'a run that ends; see above'
      )
    return run, line

  def _take(self, run: suite_lib.Run, line: _Line) -> None:
    """Records a run's line, and removes its folder."""
    if (run.cell, run.seed) not in self.results:
      with open(self._path, 'a', encoding='utf-8') as file:
        file.write(json.dumps(line) + '\n')
    self.results[run.cell, run.seed] = line
    shutil.rmtree(self._model_dir(run))

  def _log_end(self, line: _Line, jobs: int) -> None:
    missing = self.missing
    logging.info(
      '%s, seed %d: %s  %d of %d runs left, %s',
      line['cell'],
      line['seed'],
      ' '.join(f'{k} {v:.2f}' for k, v in line['accuracies'].items()),
      len(missing),
      len(self._suite.runs),
      progress.format_seconds(self._cpu_seconds(missing) / jobs),
    )

  def _cpu_seconds(self, runs: list[suite_lib.Run]) -> float:
    """Estimates the time of runs by runs of their cells, or by the mean."""
    taken: dict[str, list[float]] = {}
    for line in self.results.values():
      seconds = line['train_cpu_seconds'] + line['test_cpu_seconds']
      taken.setdefault(line['cell'], []).append(seconds)
    every = [second for values in taken.values() for second in values]
    means = [taken.get(run.cell, every) for run in runs]
    return sum(sum(values) / len(values) for values in means)

  def _log_status(self) -> None:
    for run, _ in list(self._at_work.values()):
      values = _last_metrics(self._model_dir(run))
      if values is not None:
        status = _status(run, values)
        logging.info('%s, seed %d: %s', run.cell, run.seed, status)


def _last_metrics(directory: str) -> Optional[dict[str, float]]:
  path = os.path.join(directory, paths.METRICS)
  if not os.path.exists(path):
    return None
  with open(path, encoding='utf-8') as file:
    lines = file.read().splitlines(keepends=True)
  whole = [line for line in lines if line.endswith('\n')]
  return json.loads(whole[-1]) if whole else None


def _status(run: suite_lib.Run, values: dict[str, float]) -> str:
  """Formats where training is; its tests add to the time left."""
  config = run.config
  rate = values['images_per_second']
  steps = config.train_steps - values['step']
  left = progress.format_seconds(steps * config.train.batch_size / rate)
  return (
    f'step {values["step"]}/{config.train_steps}  {rate:.0f} images/s'
    f'  {left} of training left'
  )


def _end_last_line(path: str) -> None:
  """Ends a line that was cut by a kill, so that the next one is whole."""
  with open(path, 'ab+') as file:
    if file.tell():
      file.seek(-1, os.SEEK_END)
      if file.read() != b'\n':
        file.write(b'\n')
