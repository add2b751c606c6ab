import fcntl
import json
import re
import subprocess
import sys
import time

import pytest
import tensorflow as tf
import yaml

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import paths
from efficientnet_advprop.config import recipes
from efficientnet_advprop.data import sources
from tools import reproduce
from tools.suites import datasets
from tools.suites import runner
from tools.suites import suite as suite_lib
from tools.suites import whole


@pytest.fixture(name='suite_path', scope='module')
def _suite_path(tmp_path_factory):
  """Two cells of two steps each on a few embedded images."""
  with open(paths.recipe('suites/demo'), encoding='utf-8') as file:
    values = yaml.safe_load(file)
  values['name'] = 'tiny'
  values['splits'] = {'train': 40, 'validation': 20}
  values['corrupted_images'] = 1
  values['run'] = recipes.merge(
    values['run'],
    {
      'model': {'width_coefficient': 0.125},
      'data': {'num_train_images': 40, 'num_eval_images': 20},
      'train': {'batch_size': 20, 'epochs': 1, 'log_steps': 1},
      'eval': {'tests': {'stylized': None}},
    },
  )
  values['stages'][0]['seeds'] = 2
  values['claims'] = values['claims'][:1]
  path = tmp_path_factory.mktemp('suite') / 'tiny.yaml'
  path.write_text(yaml.safe_dump(values, sort_keys=False))
  return path


@pytest.fixture(name='work_dir', scope='module')
def _work_dir(tmp_path_factory, suite_path):
  """With the suite's images."""
  directory = tmp_path_factory.mktemp('work')
  suite = suite_lib.load(str(suite_path))
  testdata = sources.data_dir(config_lib.DataConfig())
  datasets.prepare(suite, testdata, str(directory / 'data'), 1)
  return directory


def _command(tmp_path, suite_path, *flags):
  command = [sys.executable, reproduce.__file__, f'--suite={suite_path}']
  return [*command, f'--output_dir={tmp_path / "results"}', *flags]


def _reproduce(tmp_path, suite_path, *flags):
  command = _command(tmp_path, suite_path, *flags)
  return subprocess.run(command, capture_output=True, text=True, check=False)


def test_weights_are_refused_where_runs_start_from_random_ones(
  tmp_path, suite_path
):
  done = _reproduce(tmp_path, suite_path, '--init_checkpoint=lite0.pth')
  assert done.returncode == errors.EXIT_USER_ERROR
  (line,) = done.stderr.splitlines()
  assert 'init_checkpoint: got' in line and 'start from random weights' in line


def test_a_run_starts_from_the_weights_of_the_flag(
  tmp_path, suite_path, work_dir
):
  """They take the place of those that the suite names."""
  values = yaml.safe_load(suite_path.read_text())
  values['run']['train']['init_checkpoint'] = 'timm/nowhere'
  path = tmp_path / 'tiny.yaml'
  path.write_text(yaml.safe_dump(values, sort_keys=False))
  done = _reproduce(
    tmp_path,
    path,
    '--init_checkpoint=lite0.pth',
    f'--work_dir={work_dir}',
    '--run=vanilla:0',
  )
  assert done.returncode == errors.EXIT_USER_ERROR
  assert 'lite0.pth' in done.stderr and 'nowhere' not in done.stderr


def test_a_finished_run_is_not_made_again(tmp_path, suite_path, work_dir):
  """Three of four runs are there; the fourth is made and all reported."""
  suite = suite_lib.load(str(suite_path))
  made = {'clean': 50.0, 'corrupted': 40.0, 'auxiliary': 30.0}
  lines = [
    {
      'cell': run.cell,
      'seed': run.seed,
      'digest': run.digest,
      'accuracies': {**made, 'clean': 50.0 + index},
      **dict(train_cpu_seconds=60, test_cpu_seconds=1),
      **dict(tensorflow='2', python='3', date='2026-01-01'),
    }
    for index, run in enumerate(suite.runs[:3])
  ]
  stale = {**lines[0], 'digest': 'of other settings', 'seed': 1}
  results = tmp_path / 'results'
  results.mkdir()
  path = results / 'tiny.jsonl'
  texts = [json.dumps(line) for line in (*lines, stale)]
  path.write_text('\n'.join([*texts, '{"cell": "vani']))
  done = _reproduce(tmp_path, suite_path, '--jobs=1', f'--work_dir={work_dir}')
  assert done.returncode == 0, done.stderr
  found = runner.read_results(str(path), suite)
  assert list(found) == [(run.cell, run.seed) for run in suite.runs]
  last = suite.runs[3]
  line = found[last.cell, last.seed]
  assert set(line['accuracies']) == set(made)
  assert line['curve'] == [[1.0, line['accuracies']['clean']]]
  assert '0 of 4 runs left' in done.stderr
  report = (results / 'tiny.md').read_text()
  assert '4 of 4 runs' in report and 'advprop.clean - vanilla.clean' in report
  assert (results / 'tiny-cells.png').read_bytes()[:4] == b'\x89PNG'
  # Corrupted whole: the test takes 32 pixels of it, as of others.
  (corrupted, *_) = sorted((work_dir / 'data').glob('corrupted-*'))
  (record,) = tf.data.TFRecordDataset(str(corrupted)).as_numpy_iterator()
  feature = tf.train.Example.FromString(record).features.feature
  image = tf.io.decode_image(feature['image/encoded'].bytes_list.value[0])
  assert image.shape == [40, 40, 3]


def test_sigterm_stops_what_is_at_work(tmp_path, suite_path, work_dir):
  """No run outlives its suite; a run without a line stays, to be resumed."""
  command = _command(tmp_path, suite_path, '--jobs=1', f'--work_dir={work_dir}')
  suite = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
  (first, *_) = suite_lib.load(str(suite_path)).runs
  folder = work_dir / f'{first.cell}-{first.seed}-{first.digest}'
  while not (folder / 'lock').exists():
    assert suite.poll() is None
    time.sleep(0.1)
  suite.terminate()
  _, log = suite.communicate()
  assert suite.returncode == 143 and 'Traceback' not in log
  assert log.splitlines()[-1].startswith('reproduce: stopped')
  with open(folder / 'lock') as lock:  # Its process is gone.
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  assert not (tmp_path / 'results' / 'tiny.md').exists()


@pytest.mark.parametrize(
  'flags, message',
  [
    (['--run=vanila:0'], "run: got 'vanila:0'; .*did you mean vanilla:0"),
    (['--data_dir=/nowhere'], '/nowhere'),
    (['--jobs=0'], 'jobs'),
    (['--suite=none.yaml'], 'none.yaml'),
  ],
)
def test_a_wrong_flag_ends_in_one_line(tmp_path, suite_path, flags, message):
  done = _reproduce(tmp_path, suite_path, f'--work_dir={tmp_path}', *flags)
  assert done.returncode == 2
  line = done.stderr.splitlines()[-1]
  assert line.startswith('reproduce: ') and 'Traceback' not in done.stderr
  assert re.search(message, line)


def test_results_go_to_a_folder_of_the_user(tmp_path, suite_path):
  command = [sys.executable, reproduce.__file__, f'--suite={suite_path}']
  done = subprocess.run(
    [*command, '--report'], cwd=tmp_path, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  assert (tmp_path / done.stdout.strip()).parts[-2:] == ('tiny', 'tiny.md')
  assert (tmp_path / 'runs' / 'tiny' / 'tiny.md').exists()


def test_published_lines_stand_next_to_one_s_own(tmp_path, suite_path):
  suite = suite_lib.load(str(suite_path))
  published = [
    {'cell': run.cell, 'seed': run.seed, 'accuracies': {'clean': accuracy}}
    for run, accuracy in zip(suite.runs, (40.0, 50.0, 60.0, 80.0))
  ]
  path = tmp_path / 'published.jsonl'
  path.write_text('\n'.join(map(json.dumps, published)))
  place = whole.Place(str(suite_path), str(tmp_path), None)
  rows = [line.split() for line in place.comparison(str(path)).splitlines()]
  by_cell = {row[0]: row for row in rows}
  cells = [run.cell for run in suite.runs]
  for cell in set(cells):
    values = [
      line['accuracies']['clean'] for line in published if line['cell'] == cell
    ]
    mean = f'{sum(values) / len(values):.2f}'
    assert by_cell[cell][1:] == ['clean', 'none', mean, f'({len(values)})']
  path.write_text('{"cell": "other", "seed": 0, "accuracies": {"clean": 1}}')
  with pytest.raises(errors.DataError, match='no results of this suite'):
    place.comparison(str(path))
