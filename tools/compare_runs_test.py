import json

import pytest

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import paths
from tools import compare_runs


def _write_run(path, accuracy, **tests):
  path.joinpath('evals').mkdir(parents=True)
  config = config_lib.load_config(paths.recipe('demo'))
  (path / 'config.yaml').write_text(config_lib.to_yaml(config))
  values = {
    'step': 3,
    'num_examples': 500,
    'domain': 'main',
    'weights': 'ema',
    'top_1_accuracy': accuracy,
  }
  (path / 'eval.json').write_text(json.dumps(values))
  for name, value in tests.items():
    values['top_1_accuracy'] = value
    (path / 'evals' / f'{name}.json').write_text(json.dumps(values))
  return str(path)


def _run(*arguments):
  """Returns the exit code."""
  try:
    compare_runs.main(compare_runs.parse_flags(['compare_runs', *arguments]))
  except SystemExit as stopped:
    return stopped.code
  return 0


def test_runs_stand_side_by_side(tmp_path, capsys):
  one = _write_run(tmp_path / 'one', 0.5, hard=0.25)
  two = _write_run(tmp_path / 'two', 0.625, hard=0.375)
  (tmp_path / 'two' / 'evals' / 'c.part.json').write_text('{}')  # Unfinished.
  output = tmp_path / 'both'
  assert _run(f'--model_dirs={one},{two}', f'--output_dir={output}') == 0
  assert capsys.readouterr().out == f'{output}/report.md\n'
  text = (output / 'report.md').read_text()
  assert '| test | norms | images | one | two |' in text
  assert '| main | main | 500 | 50.00 | 62.50 |' in text
  assert '| hard | main | 500 | 25.00 | 37.50 |' in text


@pytest.mark.parametrize(
  'change, words',
  [
    (lambda run: (run / 'eval.json').unlink(), 'eval.json: missing; evaluate'),
    (lambda run: (run / 'eval.json').write_text('{'), 'eval.json: not JSON'),
    (lambda run: (run / 'config.yaml').unlink(), 'config.yaml'),
  ],
)
def test_what_is_no_run_is_one_line(tmp_path, capsys, change, words):
  one = _write_run(tmp_path / 'one', 0.5)
  change(tmp_path / 'one')
  assert _run(f'--model_dirs={one}', f'--output_dir={tmp_path}/both') == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('compare_runs: ') and words in line


def test_missing_flags_are_one_line(capsys):
  assert _run('--model_dirs=', '--output_dir=x') == 2
  assert 'model_dirs' in capsys.readouterr().err
