r"""Runs a suite of methods, strengths, widths and seeds; tests the claims.

  .venv/bin/python tools/reproduce.py --suite=hparams/suites/cifar10.yaml \
      --data_dir=<cifar10> --jobs=2

Each run is a process of one thread; `--jobs` run at a time. A finished run
leaves one line in `<output_dir>/<suite>.jsonl`, and is not run again: the same
command goes on where it was stopped, or killed. At the end, and with --report
alone, the lines become `<output_dir>/<suite>.md` and its plots.
`pip install -r requirements-results.txt` brings what this needs.
"""

from collections.abc import Sequence
import dataclasses
import fcntl
import os
import platform
import signal
import sys
import time
from typing import Any

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import app
from absl import flags
from absl import logging

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import devices
from efficientnet_advprop.app import program
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import paths
from efficientnet_advprop.data import sources
from efficientnet_advprop.evaluation import evaluator
from efficientnet_advprop.training import stopping
from efficientnet_advprop.training import trainer as trainer_lib
from tools.suites import datasets
from tools.suites import report as report_lib
from tools.suites import runner as runner_lib
from tools.suites import suite as suite_lib

# Behind the package, which chooses Keras and kernels before TensorFlow loads.
import tensorflow as tf  # isort: skip

_ROOT = os.path.normpath(os.path.join(os.path.dirname(__file__), os.pardir))

_FLAGS = program.flag_values(__name__)
_SUITE = flags.DEFINE_string(
  'suite',
  paths.recipe('suites/cifar10'),
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
  None,
  'Folder for results and report. Default: that of --work_dir.',
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
    data_dir: what `datasets.prepare` wrote.
    model_dir: for checkpoints.

  Returns:
    Its line: cell, seed, digest, accuracies in percent, the plain one on the
    way as pairs of epoch and percent, seconds, versions.
  """
  config = with_data(run, data_dir)
  began = time.process_time()
  strategy = devices.create_strategy('one_device')
  trainer = trainer_lib.Trainer(config, strategy, model_dir)
  is_raw = config.eval.weights == 'raw'
  network = trainer.model if is_raw else trainer.average
  judge = evaluator.Evaluator(config, strategy, network)
  curve = runner_lib.Curve(model_dir)

  def evaluate(step: int) -> dict[str, float]:
    start = time.process_time()
    result = judge.evaluate()
    accuracy = round(100 * result['top_1_accuracy'], 3)
    seconds = time.process_time() - start
    curve.add(round(step / config.steps_per_epoch, 2), accuracy, seconds)
    return {k: v for k, v in result.items() if isinstance(v, float)}

  trainer.train(evaluate)
  trained = time.process_time()
  plain = config_lib.NamedTestConfig()
  tests = {suite_lib.PLAIN_TEST: plain, **config.eval.tests}
  accuracies = {
    name: round(100 * judge.evaluate(test)['top_1_accuracy'], 3)
    for name, test in tests.items()
  }
  return {
    'cell': run.cell,
    'seed': run.seed,
    'digest': run.digest,
    'accuracies': accuracies,
    'curve': curve.points,
    'train_cpu_seconds': round(trained - began - curve.seconds),
    'test_cpu_seconds': round(time.process_time() - trained + curve.seconds),
    'tensorflow': tf.__version__,
    'python': platform.python_version(),
    'date': time.strftime('%Y-%m-%d', time.gmtime()),
  }


def _single_run(suite: suite_lib.Suite, name: str, work_dir: str) -> None:
  """Makes a run and leaves its line in its folder."""
  runs = {f'{run.cell}:{run.seed}': run for run in suite.runs}
  config_lib.check_choice('run', name, runs)
  tf.config.experimental.enable_op_determinism()
  # Ctrl-C reaches all processes; the suite's own ends this one by SIGTERM.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  model_dir = runner_lib.model_dir(work_dir, runs[name])
  os.makedirs(model_dir, exist_ok=True)
  with open(os.path.join(model_dir, 'lock'), 'w') as lock:
    # A suite that was killed may have left a process at work on it.
    fcntl.flock(lock, fcntl.LOCK_EX)
    if runner_lib.read_line(model_dir) is None:
      data_dir = os.path.join(work_dir, 'data')
      line = make_run(runs[name], data_dir, model_dir)
      runner_lib.leave_line(model_dir, line)


def _stop(number: int, frame: object) -> None:
  del number, frame
  raise stopping.StoppedError('stopped; the same command goes on')


def _reproduce() -> None:
  suite = suite_lib.load(_SUITE.value)
  work_dir = _WORK_DIR.value or os.path.join('runs', suite.name)
  output_dir = _OUTPUT_DIR.value or work_dir
  path = os.path.join(output_dir, f'{suite.name}.jsonl')
  suite = suite_lib.load(_SUITE.value, runner_lib.read_lines(path))
  if _RUN.value:
    _single_run(suite, _RUN.value, work_dir)
    return
  os.makedirs(output_dir, exist_ok=True)
  if _REPORT.value:
    results = runner_lib.read_results(path, suite)
  else:
    data_dir = _DATA_DIR.value or sources.data_dir(config_lib.DataConfig())
    directory = os.path.join(work_dir, 'data')
    jobs = _JOBS.value or 1
    datasets.prepare(suite, data_dir, directory, jobs)
    for number in (signal.SIGTERM, signal.SIGINT):
      signal.signal(number, _stop)
    run = [sys.executable, os.path.abspath(__file__)]
    run += [f'--suite={_SUITE.value}', f'--work_dir={work_dir}']
    run += [f'--output_dir={output_dir}']
    while True:
      runner = runner_lib.Runner(suite, path, work_dir, run)
      runner.run_all(jobs)
      results = runner.results
      if not suite.waiting:
        break
      # The choice that later stages wait for can be made now.
      suite = suite_lib.load(_SUITE.value, results.values())
  command = (
    '.venv/bin/python tools/reproduce.py'
    f' --suite={os.path.relpath(_SUITE.value, _ROOT)}'
  )
  if _DATA_DIR.value:
    command += f' --data_dir=<{suite.name}>'
  print(report_lib.write(suite, results, output_dir, command))


def main(_: Sequence[str]) -> int:
  """Runs what is missing, then reports; returns the exit code."""
  logging.set_verbosity(logging.WARNING if _RUN.value else logging.INFO)
  try:
    _reproduce()
  except (errors.UserError, OSError) as error:
    program.fail('reproduce', error)
  except stopping.StoppedError as stopped:
    print(f'reproduce: {stopped}', file=sys.stderr)
    return errors.EXIT_TERMINATED
  return 0


if __name__ == '__main__':
  app.run(main, flags_parser=program.parser('reproduce', _FLAGS))
