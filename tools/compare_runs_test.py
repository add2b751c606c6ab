import json

import pytest

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import program
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import paths
from tools import compare_runs


def _write_run(path, accuracy, images=500, **tests):
  path.joinpath('evals').mkdir(parents=True)
  config = config_lib.load_config(paths.recipe('demo'))
  (path / 'config.yaml').write_text(config_lib.to_yaml(config))
  values = {
    'step': 3,
    'num_examples': images,
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
  compare_runs._FLAGS.unparse_flags()
  parse = program.parser('tool', compare_runs._FLAGS, compare_runs._check)
  compare_runs.main(parse(['tool', *arguments]))


def test_runs_stand_side_by_side(tmp_path, capsys):
  one = _write_run(tmp_path / 'one', 0.5, 400, hard=0.25)
  two = _write_run(tmp_path / 'two', 0.625, hard=0.375)
  (tmp_path / 'two' / 'evals' / 'c.part.json').write_text('{}')  # Unfinished.
  output = tmp_path / 'both'
  _run(f'--model_dirs={one},{two}', f'--output_dir={output}')
  assert capsys.readouterr().out == f'{output}/report.md\n'
  text = (output / 'report.md').read_text()
  assert '| test | norms | images | one | two |' in text
  assert '| main | main | 400 / 500 | 50.00 | 62.50 |' in text
  assert '| hard | main | 400 / 500 | 25.00 | 37.50 |' in text


@pytest.mark.parametrize(
  'change, words',
  [
    (
      lambda run: (run / 'eval.json').unlink(),
      r'eval\.json: missing; evaluate',
    ),
    (lambda run: (run / 'eval.json').write_text('{'), r'eval\.json: not JSON'),
    (lambda run: (run / 'config.yaml').unlink(), r'config\.yaml'),
  ],
)
def test_what_is_no_run_is_named(tmp_path, change, words):
  one = _write_run(tmp_path / 'one', 0.5)
  change(tmp_path / 'one')
  with pytest.raises(errors.UserError, match=words):
    _run(f'--model_dirs={one}', f'--output_dir={tmp_path}/both')


def test_missing_flags_are_one_line(capsys):
  with pytest.raises(SystemExit) as stopped:
    _run('--model_dirs=', '--output_dir=x')
  assert stopped.value.code == 2
  assert '--model_dirs is needed' in capsys.readouterr().err
