"""Trains and tests one run of a suite."""

import dataclasses
import fcntl
import os
import platform
import signal
import time
from typing import Any, Optional

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import devices
from efficientnet_advprop import execution
from efficientnet_advprop.evaluation import evaluator
from efficientnet_advprop.training import trainer as trainer_lib
from tools.suites import runner as runner_lib
from tools.suites import suite as suite_lib

# Imported after the package, which selects Keras 2.
import tensorflow as tf  # isort: skip


def run_in_this_process(
  suite: suite_lib.Suite,
  name: str,
  work_dir: str,
  init_checkpoint: Optional[str] = None,
) -> None:
  """Makes a run, and leaves its line in its folder.

  Args:
    suite: names the run.
    name: `<cell>:<seed>`.
    work_dir: of the suite.
    init_checkpoint: weights in place of the run's `train.init_checkpoint`.

  Raises:
    ConfigError: the suite has no such run.
    StoppedError: SIGTERM stopped it.
  """
  runs = {f'{run.cell}:{run.seed}': run for run in suite.runs}
  config_lib.check_choice('run', name, runs)
  execution.set_determinism(runs[name].config.train.deterministic)
  # Ctrl-C reaches all processes; the suite ends this one by SIGTERM.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  model_dir = runner_lib.model_dir(work_dir, runs[name])
  os.makedirs(model_dir, exist_ok=True)
  with open(os.path.join(model_dir, 'lock'), 'w') as lock:
    # A killed suite may have left a process that still works on it.
    fcntl.flock(lock, fcntl.LOCK_EX)
    if runner_lib.read_line(model_dir) is None:
      data_dir = os.path.join(work_dir, 'data')
      line = make_run(runs[name], data_dir, model_dir, init_checkpoint)
      runner_lib.leave_line(model_dir, line)


def make_run(
  run: suite_lib.Run,
  data_dir: str,
  model_dir: str,
  init_checkpoint: Optional[str] = None,
) -> dict[str, Any]:
  """Trains and tests one cell with one seed, or resumes it.

  Args:
    run: the cell and the seed.
    data_dir: what `datasets.prepare` wrote.
    model_dir: for checkpoints.
    init_checkpoint: weights in place of the run's `train.init_checkpoint`.

  Returns:
    Its line: cell, seed, digest, accuracies in percent, the plain accuracy
    during training as pairs of epoch and percent, CPU seconds, versions. A run
    that resumed counts the seconds since then, scaled to all of its steps.
  """
  config = _with_places(run, data_dir, init_checkpoint)
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

  first = trainer.step
  trainer.train(evaluate)
  trained = time.process_time()
  share = 1 - first / config.train_steps or 1  # All of it was made before.
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
    'train_cpu_seconds': round((trained - began - curve.seconds) / share),
    'test_cpu_seconds': round(time.process_time() - trained + curve.seconds),
    'tensorflow': tf.__version__,
    'python': platform.python_version(),
    'date': time.strftime('%Y-%m-%d', time.gmtime()),
  }


def _with_places(
  run: suite_lib.Run, data_dir: str, init_checkpoint: Optional[str]
) -> config_lib.Config:
  """Returns the run's settings, with the places of its images and weights."""
  config = run.config
  train = config.train
  if init_checkpoint:
    train = dataclasses.replace(train, init_checkpoint=init_checkpoint)
  data = dataclasses.replace(config.data, dir=data_dir)
  return dataclasses.replace(config, data=data, train=train)
