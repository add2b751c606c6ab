"""Runs a suite of methods, strengths, widths and seeds; tests the claims.

  python tools/reproduce.py --suite=hparams/cifar10/suite.yaml \
      --data_dir=<cifar10> --jobs=2

Each run is a process of one thread; `--jobs` run at a time. A finished run
leaves one line in `<output_dir>/<suite>.jsonl`, and is not run again: the same
command goes on where it was stopped, or killed. At the end, and with --report
alone, the lines become `<output_dir>/<suite>.md` and its plots.
`pip install -r requirements-results.txt` brings what this needs.
"""

from collections.abc import Sequence
import concurrent.futures
import dataclasses
import fcntl
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from typing import Any, Optional

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import app
from absl import flags
from absl import logging

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import modes
from efficientnet_advprop.data import sources
from efficientnet_advprop.evaluation import evaluator
from efficientnet_advprop.training import distribution
from efficientnet_advprop.training import reporting
from efficientnet_advprop.training import trainer as trainer_lib
from tools import flag_parser
from tools import suite as suite_lib
from tools import suite_data
from tools import suite_report

# Behind the package, which chooses Keras and kernels before TensorFlow loads.
import tensorflow as tf  # isort: skip

_ROOT = os.path.normpath(os.path.join(os.path.dirname(__file__), os.pardir))
_USER_ERROR = 2
_STOPPED = 143
_RESULT = 'result.json'  # In a run's folder, until the suite has its line.
# TensorFlow reads these when it starts.
_ONE_THREAD = {
  'TF_NUM_INTRAOP_THREADS': '1',
  'TF_NUM_INTEROP_THREADS': '1',
  'OMP_NUM_THREADS': '1',
}

_FLAGS = flags.FLAGS if __name__ == '__main__' else flags.FlagValues()
_SUITE = flags.DEFINE_string(
  'suite',
  os.path.join(_ROOT, 'hparams', 'cifar10', 'suite.yaml'),
  'The suite.',
  flag_values=_FLAGS,
)
_DATA_DIR = flags.DEFINE_string(
  'data_dir',
  '',
  'TFRecords, class folders, or tfds:<name>. Default: the embedded data set.',
  flag_values=_FLAGS,
)
_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir',
  os.path.join(_ROOT, 'docs', 'results'),
  'Where results and report go.',
  flag_values=_FLAGS,
)
_WORK_DIR = flags.DEFINE_string(
  'work_dir',
  None,
  'Where images and unfinished runs lie. Default: runs/<suite>.',
  flag_values=_FLAGS,
)
_JOBS = flags.DEFINE_integer(
  'jobs', os.cpu_count(), 'Runs at a time.', 1, flag_values=_FLAGS
)
_REPORT = flags.DEFINE_bool(
  'report', False, 'Only write the report.', flag_values=_FLAGS
)
_RUN = flags.DEFINE_string(
  'run',
  None,
  'Make this run, <cell>:<seed>, in this process.',
  flag_values=_FLAGS,
)


def with_data(run: suite_lib.Run, data_dir: str) -> config_lib.Config:
  """The run's settings, with the folder of its images."""
  data = dataclasses.replace(run.config.data, dir=data_dir)
  return dataclasses.replace(run.config, data=data)


def make_run(
  run: suite_lib.Run, data_dir: str, model_dir: str
) -> dict[str, Any]:
  """Trains and tests one cell with one seed, or goes on with it.

  Args:
    run: which.
    data_dir: what `suite_data.prepare` wrote.
    model_dir: for checkpoints.

  Returns:
    Its line: cell, seed, digest, accuracies in percent, seconds, versions.
  """
  config = with_data(run, data_dir)
  began = time.process_time()
  strategy = distribution.create_strategy('one_device')
  trainer = trainer_lib.Trainer(config, strategy, model_dir)
  trainer.train()
  trained = time.process_time()
  is_raw = config.eval.weights == 'raw'
  network = trainer.model if is_raw else trainer.average
  judge = evaluator.Evaluator(config, strategy, network)
  tests = {suite_lib.PLAIN_TEST: config_lib.TestConfig(), **config.eval.tests}
  accuracies = {
    name: round(100 * judge.evaluate(test)['top_1_accuracy'], 3)
    for name, test in tests.items()
  }
  return {
    'cell': run.cell,
    'seed': run.seed,
    'digest': run.digest,
    'accuracies': accuracies,
    'train_cpu_seconds': round(trained - began),
    'test_cpu_seconds': round(time.process_time() - trained),
    'tensorflow': tf.__version__,
    'python': platform.python_version(),
    'date': time.strftime('%Y-%m-%d', time.gmtime()),
  }


def read_results(
  path: str, suite: suite_lib.Suite
) -> dict[tuple[str, int], dict[str, Any]]:
  """The lines of finished runs whose settings are still the suite's."""
  digests = {(run.cell, run.seed): run.digest for run in suite.runs}
  results = {}
  if os.path.exists(path):
    with open(path, encoding='utf-8') as file:
      for text in file:
        try:
          line = json.loads(text)
        except ValueError:
          continue  # Cut when the suite was killed.
        key = line['cell'], line['seed']
        if digests.get(key) == line['digest']:
          results[key] = line
  return results


class _Runner:
  """Makes the missing runs of a suite in processes."""

  def __init__(self, suite: suite_lib.Suite, path: str, work_dir: str):
    self.suite, self.path, self.work_dir = suite, path, work_dir
    self.results = read_results(path, suite)
    _end_last_line(path)
    for run in suite.runs:  # The suite was killed before it took their lines.
      line = _read_result(_model_dir(run, work_dir))
      if line is not None and (run.cell, run.seed) not in self.results:
        self._take(run, line)
    self.missing = [
      run for run in suite.runs if (run.cell, run.seed) not in self.results
    ]
    self.seconds: dict[str, list[float]] = {}
    self.processes: set[subprocess.Popen] = set()

  def run_all(self, jobs: int) -> None:
    """Makes them; if that is stopped, all that is at work saves and ends."""
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
      futures = [pool.submit(self._run, run) for run in self.missing]
      try:
        for done, future in enumerate(
          concurrent.futures.as_completed(futures), 1
        ):
          run, line = future.result()
          self._take(run, line)
          self._log(line, len(futures) - done, jobs)
      except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(self.processes):
          process.terminate()
        raise

  def _run(self, run: suite_lib.Run) -> tuple[suite_lib.Run, dict[str, Any]]:
    began = time.monotonic()
    command = [sys.executable, os.path.abspath(__file__)]
    command += [f'--suite={_SUITE.value}', f'--work_dir={self.work_dir}']
    command += [f'--run={run.cell}:{run.seed}']
    process = subprocess.Popen(command, env={**os.environ, **_ONE_THREAD})
    self.processes.add(process)
    process.wait()
    self.processes.remove(process)
    line = _read_result(_model_dir(run, self.work_dir))
    if process.returncode or line is None:
      raise config_lib.ConfigError(
        'run', f'{run.cell}:{run.seed}', 'a run that ends; see above'
      )
    self.seconds.setdefault(run.cell, []).append(time.monotonic() - began)
    return run, line

  def _take(self, run: suite_lib.Run, line: dict[str, Any]) -> None:
    """Writes down a run's line; its folder is of no use any more."""
    with open(self.path, 'a', encoding='utf-8') as file:
      file.write(json.dumps(line) + '\n')
    self.results[run.cell, run.seed] = line
    shutil.rmtree(_model_dir(run, self.work_dir))

  def _log(self, line: dict[str, Any], left: int, jobs: int) -> None:
    logging.info(
      '%s, seed %d: %s  %d of %d runs left, %s',
      line['cell'],
      line['seed'],
      ' '.join(f'{k} {v:.2f}' for k, v in line['accuracies'].items()),
      left,
      len(self.suite.runs),
      reporting.format_seconds(self._seconds_left() / jobs),
    )

  def _seconds_left(self) -> float:
    """As many as the cell's own runs took, else as the mean over all."""
    every = [second for values in self.seconds.values() for second in values]
    left = 0.0
    for run in self.missing:
      if (run.cell, run.seed) not in self.results:
        known = self.seconds.get(run.cell, every)
        left += sum(known) / len(known)
    return left


def _end_last_line(path: str) -> None:
  """A line that was cut by a kill must not take the next one with it."""
  with open(path, 'ab+') as file:
    if file.tell():
      file.seek(-1, os.SEEK_END)
      if file.read() != b'\n':
        file.write(b'\n')


def _model_dir(run: suite_lib.Run, work_dir: str) -> str:
  """Named by the settings, too: others' checkpoints are of no use."""
  return os.path.join(work_dir, f'{run.cell}-{run.seed}-{run.digest}')


def _read_result(model_dir: str) -> Optional[dict[str, Any]]:
  path = os.path.join(model_dir, _RESULT)
  if not os.path.exists(path):
    return None
  with open(path, encoding='utf-8') as file:
    return json.load(file)


def _single_run(suite: suite_lib.Suite, name: str, work_dir: str) -> None:
  """Makes a run and leaves its line in its folder."""
  runs = {f'{run.cell}:{run.seed}': run for run in suite.runs}
  config_lib.check_choice('run', name, runs)
  tf.config.experimental.enable_op_determinism()
  # Ctrl-C reaches all processes; the suite's own ends this one by SIGTERM.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  model_dir = _model_dir(runs[name], work_dir)
  os.makedirs(model_dir, exist_ok=True)
  with open(os.path.join(model_dir, 'lock'), 'w') as lock:
    # A suite that was killed may have left a process at work on it.
    fcntl.flock(lock, fcntl.LOCK_EX)
    if _read_result(model_dir) is None:
      data_dir = os.path.join(work_dir, 'data')
      line = make_run(runs[name], data_dir, model_dir)
      path = os.path.join(model_dir, _RESULT)
      with open(f'{path}.tmp', 'w', encoding='utf-8') as file:
        json.dump(line, file)
      os.replace(f'{path}.tmp', path)


def _stop(number: int, frame: object) -> None:
  del number, frame
  raise trainer_lib.StoppedError('stopped; the same command goes on')


def _reproduce() -> None:
  suite = suite_lib.load(_SUITE.value)
  work_dir = _WORK_DIR.value or os.path.join('runs', suite.name)
  if _RUN.value:
    _single_run(suite, _RUN.value, work_dir)
    return
  output_dir = _OUTPUT_DIR.value
  os.makedirs(output_dir, exist_ok=True)
  path = os.path.join(output_dir, f'{suite.name}.jsonl')
  results = read_results(path, suite)
  if not _REPORT.value:
    data_dir = _DATA_DIR.value or sources.data_dir(config_lib.DataConfig())
    directory = os.path.join(work_dir, 'data')
    jobs = _JOBS.value or 1
    suite_data.prepare(suite, data_dir, directory, jobs)
    for number in (signal.SIGTERM, signal.SIGINT):
      signal.signal(number, _stop)
    runner = _Runner(suite, path, work_dir)
    runner.run_all(jobs)
    results = runner.results
  command = f'python tools/reproduce.py --suite={os.path.relpath(_SUITE.value)}'
  print(suite_report.write(suite, results, output_dir, command))


def main(_: Sequence[str]) -> int:
  """Runs what is missing, then reports; returns the exit code."""
  logging.set_verbosity(logging.WARNING if _RUN.value else logging.INFO)
  try:
    _reproduce()
  except modes.USER_ERRORS as error:
    print(f'reproduce: {error}', file=sys.stderr)
    return _USER_ERROR
  except trainer_lib.StoppedError as stopped:
    print(f'reproduce: {stopped}', file=sys.stderr)
    return _STOPPED
  return 0


if __name__ == '__main__':
  app.run(main, flags_parser=flag_parser.parser('reproduce', _FLAGS))
