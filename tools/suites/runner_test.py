import json
import logging
import os
import re
import subprocess
import sys
import time

import pytest

from efficientnet_advprop import config as config_lib
from tools.suites import runner as runner_lib
from tools.suites import suite as suite_lib

# Stands for a run: leaves its line in its folder, if it has been given one.
_PROGRAM = """
import os, sys, time
time.sleep(0.1)
folder, run = sys.argv[1], sys.argv[2].split('=')[1].replace(':', '-')
path = os.path.join(folder, run + '-0', 'line')
if not os.path.exists(path):
  sys.exit(3)
os.rename(path, os.path.join(folder, run + '-0', 'result.json'))
"""


def _suite(seeds):
  data = config_lib.DataConfig(num_train_images=50_000)
  config = config_lib.Config(data=data)
  runs = tuple(
    suite_lib.Run(cell, seed, config, '0')
    for seed in range(seeds)
    for cell in ('a', 'b')
  )
  return suite_lib.Suite('small', {}, 0, config, runs, ())


def _line(run, cpu_seconds=60):
  return {
    'cell': run.cell,
    'seed': run.seed,
    'digest': run.digest,
    'accuracies': {'clean': 50.0 + run.seed},
    **dict(train_cpu_seconds=cpu_seconds, test_cpu_seconds=0),
  }


def _runner(tmp_path, suite):
  command = [sys.executable, '-c', _PROGRAM, str(tmp_path)]
  path = str(tmp_path / 'small.jsonl')
  return runner_lib.Runner(suite, path, str(tmp_path), command)


def _prepare(tmp_path, run, name='line'):
  folder = tmp_path / os.path.basename(runner_lib.model_dir('', run))
  folder.mkdir()
  (folder / name).write_text(json.dumps(_line(run)))
  return folder


def test_what_ended_when_its_suite_was_killed_counts(tmp_path):
  """Whether the suite had taken a run's line, was about to, or was at it."""
  suite = _suite(2)
  path = tmp_path / 'small.jsonl'
  taken = json.dumps(_line(suite.runs[0]))
  path.write_text(f'{taken}\n{{"cell": "b", "se')
  folders = [_prepare(tmp_path, run, 'result.json') for run in suite.runs[:3]]
  runner = _runner(tmp_path, suite)
  assert runner.missing == [suite.runs[3]]
  assert not any(folder.exists() for folder in folders)
  assert runner_lib.read_results(str(path), suite) == runner.results
  assert path.read_text().count(taken) == 1


def test_a_curve_outlives_its_process(tmp_path):
  curve = runner_lib.Curve(str(tmp_path))
  curve.add(10.0, 40.0, 1.5)
  curve.add(20.0, 50.0, 1.5)
  resumed = runner_lib.Curve(str(tmp_path))
  resumed.add(20.0, 51.0, 2.0)  # Killed before it knew that it had it.
  resumed.add(25.0, 52.0, 2.0)
  assert resumed.points == [[10.0, 40.0], [20.0, 51.0], [25.0, 52.0]]
  assert (curve.seconds, resumed.seconds) == (3.0, 4.0)


def test_only_lines_of_the_suite_s_settings_count(tmp_path):
  suite = _suite(1)
  path = tmp_path / 'small.jsonl'
  lines = [_line(run) for run in suite.runs]
  lines[1]['digest'] = 'of other settings'
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  assert runner_lib.read_results(str(path), suite) == {('a', 0): lines[0]}


def test_missing_runs_are_made_and_the_time_left_is_told(tmp_path, caplog):
  caplog.set_level(logging.INFO, 'absl')
  suite = _suite(2)
  folders = [_prepare(tmp_path, run) for run in suite.runs]
  runner = _runner(tmp_path, suite)
  runner.run_all(1)
  assert not runner.missing and not any(f.exists() for f in folders)
  path = str(tmp_path / 'small.jsonl')
  assert list(runner_lib.read_results(path, suite)) == [
    (run.cell, run.seed) for run in suite.runs
  ]
  first, *_, last = (line for line in caplog.messages if 'left' in line)
  assert first == 'a, seed 0: clean 50.00  3 of 4 runs left, 3:00'
  assert last == 'b, seed 1: clean 51.00  0 of 4 runs left, 0:00'


def test_a_run_that_fails_is_named_and_what_ended_stays(tmp_path):
  suite = _suite(2)
  _prepare(tmp_path, suite.runs[0])
  runner = _runner(tmp_path, suite)
  with pytest.raises(config_lib.ConfigError, match="run: got 'b:0'"):
    runner.run_all(1)
  assert list(_runner(tmp_path, suite).results) == [('a', 0)]


def test_a_run_that_begins_while_another_fails_is_ended(tmp_path, monkeypatch):
  """It has started, but its thread has not come to say so."""
  suite = _suite(2)
  started = []
  popen = subprocess.Popen

  def slow_popen(command, **options):
    if started:
      command = [sys.executable, '-c', 'import time; time.sleep(60)']
    started.append(popen(command, **options))
    time.sleep(0.5)
    return started[-1]

  monkeypatch.setattr(runner_lib.subprocess, 'Popen', slow_popen)
  with pytest.raises(config_lib.ConfigError, match="run: got 'a:0'"):
    _runner(tmp_path, suite).run_all(jobs=1)
  assert [process.returncode for process in started[1:]] in ([], [-15])


def test_a_run_at_work_tells_where_it_is(tmp_path, caplog, monkeypatch):
  caplog.set_level(logging.INFO, 'absl')
  monkeypatch.setattr(runner_lib, '_STATUS_SECONDS', 0.01)
  suite = _suite(1)
  run = suite.runs[0]
  half = run.config.train_steps // 2
  rate = run.config.train.batch_size * half / 60  # The other half: a minute.
  for each in suite.runs:
    folder = _prepare(tmp_path, each)
    metrics = json.dumps({'step': half, 'images_per_second': rate})
    (folder / 'metrics.jsonl').write_text(f'{{}}\n{metrics}\n{{"step": 3')
  _runner(tmp_path, suite).run_all(1)
  pattern = rf'a, seed 0: step {half}/.* \d+ images/s  1:00 of training left'
  assert any(re.fullmatch(pattern, line) for line in caplog.messages)
