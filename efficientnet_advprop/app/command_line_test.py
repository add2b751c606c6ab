import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import time

from absl import flags
from absl.testing import flagsaver
import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.app import command_line
from efficientnet_advprop.app import program
from efficientnet_advprop.base import errors
from efficientnet_advprop.testing import tiny_runs
from efficientnet_advprop.weights import checkpoints

_ROOT = str(Path(__file__).parents[2])
_TINY = (
  f'{",".join(tiny_runs.overrides(tiny_runs.EFFICIENTNET))},train.epochs=0.4,train.log_steps=2,'
  'train.checkpoint_steps=2'
)
# For what happens to a process, whatever the network: it starts soon.
_QUICK = (
  f'{",".join(tiny_runs.overrides(tiny_runs.RESNET))},model.dropout_rate=0,'
  'model.survival_probability=1,train.epochs=0.4,train.log_steps=2,'
  'train.checkpoint_steps=2'
)


def _parse(*arguments):
  """Parses flags as the command line does; returns the exit code if it ends."""
  values = flags.FLAGS
  with flagsaver.flagsaver():
    try:
      program.parser('main.py', values)(['main.py', *arguments])
    except SystemExit as end:
      return end.code
    finally:
      values.unparse_flags()
      values.mark_as_parsed()
  return None


def _run(**settings):
  flags.FLAGS.mark_as_parsed()
  with flagsaver.flagsaver(**settings):
    try:
      return command_line.main(['main.py']) or 0
    except (errors.UserError, OSError) as error:
      with pytest.raises(SystemExit) as end:
        program.fail('main.py', error)
      return end.value.code


def _only_line(capsys):
  lines = capsys.readouterr().err.splitlines()
  lines = [line for line in lines if line.startswith('main.py: ')]
  assert len(lines) == 1
  return lines[0]


@pytest.mark.parametrize(
  'argument, words',
  [
    ('--modle_name=x', ['modle_name', 'model_name']),
    ('--nosuchflag', ['nosuchflag']),
  ],
)
def test_a_wrong_flag_ends_in_one_line(capsys, argument, words):
  assert _parse(argument) == 2
  line = _only_line(capsys)
  for word in words:
    assert word in line


@pytest.mark.parametrize(
  'settings, words',
  [
    (dict(mode='trian'), ['mode', 'trian', 'mean train?']),
    (dict(strategy='mirorred'), ['one_device', 'mean mirrored?']),
    (dict(model_name='efficientnet-b9'), ['efficientnet-b8']),
    (dict(config_file='hparams/none.yaml'), ['hparams/none.yaml']),
    (dict(params_override='train.epoch=1'), ['train.epoch', 'epochs?']),
    (dict(params_override='train.epochs=0'), ['train.epochs', 'above 0']),
    (dict(params_override='epochs'), ['epochs', 'section.key=value']),
    (dict(data_dir='/nowhere'), ['/nowhere']),
    (dict(mode='eval'), ['no checkpoint found']),
    (dict(mode='export'), ['no checkpoint found']),
    (dict(strategy='tpu', tpu='local'), ['tpu', 'TPU VM']),
    (dict(model_dir='/dev/null/x'), ['model_dir', "'/dev/null/x'"]),
    (dict(model_dir='/sys'), ['model_dir', "'/sys'", 'can be written']),
  ],
)
def test_a_wrong_value_ends_in_one_line(capsys, tmp_path, settings, words):
  settings = {'model_dir': str(tmp_path / 'run'), **settings}
  assert _run(**settings) == 2
  line = _only_line(capsys)
  for word in words:
    assert word in line


def test_a_device_out_of_memory_is_said_in_one_line(
  capsys, monkeypatch, tmp_path
):
  @tf.function
  def too_large(size):
    return tf.reduce_sum(tf.random.stateless_uniform([size] * 3, [0, 0]))

  def train(*_):
    too_large(tf.constant(2**16))

  monkeypatch.setattr(command_line.modes, 'train', train)
  assert _run(mode='train', model_dir=str(tmp_path)) == 2
  line = _only_line(capsys)
  for word in (
    'CPU:0 is out of memory (a tensor of shape [65536,65536,65536]',
    'train.accumulation_steps',
    'train.rematerialize=true',
  ):
    assert word in line


def test_an_argument_that_is_no_flag_is_refused(capsys):
  assert _parse('train') == 2
  assert "'train' is not a flag" in _only_line(capsys)


def _command(model_dir, *arguments, override=_TINY):
  return [
    sys.executable,
    'main.py',
    '--config_file=hparams/demo.yaml',
    f'--model_dir={model_dir}',
    f'--params_override={override}',
    *arguments,
  ]


@pytest.fixture(scope='module', name='run')
def _finished_run(tmp_path_factory):
  """The main job, tiny, as a user starts it."""
  model_dir = tmp_path_factory.mktemp('run')
  result = subprocess.run(
    _command(model_dir),
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  return model_dir, result


def test_the_main_job_says_where_everything_lies(run):
  model_dir, result = run
  assert 'Traceback' not in result.stderr
  for name in ('main', 'auxiliary', 'attacked', 'stylized'):
    assert f'\n{name} ' in f'\n{result.stdout}'
  places = dict(
    line.split(maxsplit=1)
    for line in result.stdout.splitlines()
    if str(model_dir) in line
  )
  expected = {'checkpoint', 'TensorBoard', 'picture', 'SavedModel', 'tests'}
  assert set(places) == expected
  for place in places.values():
    assert os.path.exists(place)
  with open(model_dir / 'eval.json', encoding='utf-8') as file:
    values = json.load(file)
  assert values['num_examples'] == 500 and values['weights'] == 'ema'
  for name in ('auxiliary', 'attacked', 'stylized'):
    assert (model_dir / 'evals' / f'{name}.json').exists()


def _start_and_signal(model_dir, signal_number, override=_TINY):
  """Starts training, ends it once three intervals are logged."""
  process = subprocess.Popen(
    _command(model_dir, '--mode=train', override=override),
    cwd=_ROOT,
    stderr=subprocess.DEVNULL,
  )
  metrics = model_dir / 'metrics.jsonl'
  while process.poll() is None:
    if metrics.exists() and metrics.read_text().count('\n') >= 3:
      process.send_signal(signal_number)
      break
    time.sleep(0.01)
  return process.wait()


def _checkpoint_values(model_dir):
  path = tf.train.latest_checkpoint(str(model_dir / 'checkpoints'))
  reader = tf.train.load_checkpoint(path)
  return {
    name: reader.get_tensor(name)
    for name in reader.get_variable_to_shape_map()
    if not name.startswith('save_counter')
  }


@pytest.mark.once
def test_a_killed_run_ends_with_the_bits_of_an_uninterrupted_one(run, tmp_path):
  assert _start_and_signal(tmp_path, signal.SIGKILL) == -signal.SIGKILL
  interrupted = checkpoints.checkpoint_paths(str(tmp_path / 'checkpoints'))
  assert interrupted and not interrupted[0].endswith('-16')
  done = subprocess.run(
    _command(tmp_path, '--mode=train'),
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert f'Resuming from {interrupted[0]}' in done.stderr
  ours, theirs = _checkpoint_values(tmp_path), _checkpoint_values(run[0])
  assert set(ours) == set(theirs) and len(ours) > 500
  for name, value in theirs.items():
    np.testing.assert_array_equal(ours[name], value, name)
  assert _metrics(tmp_path) == _metrics(run[0])


@pytest.mark.once
def test_sigterm_saves_and_has_its_exit_code(tmp_path):
  assert _start_and_signal(tmp_path, signal.SIGTERM, _QUICK) == 143
  saved = checkpoints.checkpoint_paths(str(tmp_path / 'checkpoints'))[0]
  assert saved.endswith(f'-{_metrics(tmp_path)[-1]["step"]}')


def _metrics(model_dir):
  lines = (model_dir / 'metrics.jsonl').read_text().splitlines()
  values = [json.loads(line) for line in lines]
  drop = {'images_per_second': None, 'input_wait': None}
  return [{**v, **drop} for v in values]


def test_evaluation_repeats_the_figures_of_training(run):
  model_dir, _ = run
  path = model_dir / 'eval.json'
  before = path.read_text()
  assert _run(mode='eval', model_dir=str(model_dir)) == 0
  after = json.loads(path.read_text())
  assert after == pytest.approx(json.loads(before), rel=1e-5)


@pytest.mark.once
def test_a_test_without_images_ends_the_run_before_its_first_step(
  capsys, tmp_path
):
  settings = dict(
    model_dir=str(tmp_path / 'run'),
    config_file='hparams/demo.yaml',
    params_override=(
      'model.width_coefficient=0.25,model.depth_coefficient=0.1,'
      'eval.tests.rare.split=rare'
    ),
  )
  assert _run(**settings) == 2
  line = _only_line(capsys)
  assert "test 'rare': " in line
  assert 'eval.tests.rare=null leaves it out' in line
  assert not (tmp_path / 'run' / 'config.yaml').exists()


def test_a_test_that_fails_at_the_end_is_said_by_the_exit_code(capsys, run):
  model_dir, _ = run
  override = 'eval.tests.rare.split=rare'
  settings = dict(mode='eval', model_dir=str(model_dir))
  assert _run(**settings, params_override=override) == 1
  out = capsys.readouterr().out
  assert 'The test rare failed: ' in out and 'auxiliary' in out


def test_a_run_says_what_is_in_a_picture(capsys, run, tmp_path):
  model_dir, _ = run
  records = os.path.join(_ROOT, 'testdata', 'validation-00000-of-00002')
  settings = dict(mode='predict', model_dir=str(model_dir))
  output = tmp_path / 'found.csv'
  assert _run(**settings, input=[records], output=str(output)) == 0
  assert len(output.read_text().splitlines()) == 1 + 250
  picture = tmp_path / 'one.jpg'
  picture.write_bytes(b'no picture')
  assert _run(**settings, input=[str(picture)]) == 1
  assert 'not a JPEG, PNG, GIF or BMP picture' in capsys.readouterr().out
  assert _run(**settings) == 2


def test_the_model_dir_of_another_network_stays_as_it_is(capsys, run):
  model_dir, _ = run
  before = sorted(os.listdir(model_dir / 'checkpoints'))
  settings = dict(mode='train', model_dir=str(model_dir))
  assert _run(**settings, model_name='efficientnet-b1') == 2
  line = _only_line(capsys)
  assert 'model.name' in line and 'efficientnet-b0' in line
  assert _run(**settings, params_override='train.method=vanilla,eval.tests={}')
  assert sorted(os.listdir(model_dir / 'checkpoints')) == before


@pytest.mark.once
def test_a_damaged_record_file_stops_training(capsys, tmp_path):
  data = tmp_path / 'data'
  shutil.copytree(os.path.join(_ROOT, 'testdata'), data)
  shard = sorted(data.glob('train-*'))[0]
  content = bytearray(shard.read_bytes())
  content[len(content) // 2] ^= 1
  shard.write_bytes(content)
  settings = dict(
    mode='train',
    config_file=os.path.join(_ROOT, 'hparams', 'demo.yaml'),
    data_dir=str(data),
    model_dir=str(tmp_path / 'run'),
    params_override=_QUICK,
  )
  assert _run(**settings) == 2
  assert shard.name in _only_line(capsys)
