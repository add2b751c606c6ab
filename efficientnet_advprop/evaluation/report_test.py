import sys

import pytest

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.evaluation import corruption_error
from efficientnet_advprop.evaluation import corruptions
from efficientnet_advprop.evaluation import report


def _plain(accuracy):
  return {
    'step': 9,
    'num_examples': 500,
    'top_1_accuracy': accuracy,
    'domain': 'main',
    'weights': 'ema',
  }


def _corrupted(kind, scale):
  errors = {
    name: {s: scale * (0.1 + 0.02 * n + 0.05 * s) for s in range(1, 6)}
    for n, name in enumerate(corruptions.NAMES)
  }
  result = {
    **_plain(0.5),
    'errors': {n: {str(s): e for s, e in r.items()} for n, r in errors.items()},
    'mean_errors': corruption_error.mean_errors(errors),
    'unnormalized_mean_error': corruption_error.unnormalized_mean_error(errors),
    'evaluated': {'test': {'kind': kind}},
  }
  if kind == 'imagenet_c':
    result['corruption_errors'] = corruption_error.corruption_errors(errors)
    result['mean_corruption_error'] = corruption_error.mean_corruption_error(
      errors
    )
  return result


def _run(name, results, model='efficientnet-b7', method='advprop'):
  values = {'model': {'name': model}, 'train': {'method': method}}
  return report.Run(name, config_lib.from_dict(values), results)


def test_a_run_on_imagenet_has_its_mce(tmp_path):
  a = {**_plain(0.4567), 'evaluated': {'test': {'kind': 'imagenet_a'}}}
  results = {
    'main': _plain(0.8512),
    'hard': a,
    'c': _corrupted('imagenet_c', 1),
  }
  path = report.write([_run('b7', results)], str(tmp_path / 'evals'))
  text = (tmp_path / 'evals' / 'report.md').read_text()
  assert path == str(tmp_path / 'evals' / 'report.md')
  assert '| main | main | 500 | 85.12 |' in text
  mce = 100 * results['c']['mean_corruption_error']
  assert f'| **mCE** | **{mce:.2f}** |' in text
  assert '| hard | main | 500 | 45.67 |' in text
  assert (tmp_path / 'evals' / 'c.png').read_bytes().startswith(b'\x89PNG')


def test_runs_on_other_numbers_of_images_say_so(tmp_path):
  biased = dict(
    _plain(0.5), num_examples=100, cue='texture', num_conflicts=80,
    shape_accuracy=0.125, cue_accuracy=0.375, shape_bias=0.25,
  )  # fmt: skip
  runs = [
    _run('one', {'main': _plain(0.5), 'stylized': biased}),
    _run('two', {'main': {**_plain(0.6), 'num_examples': 499}}),
  ]
  report.write(runs, str(tmp_path))
  text = (tmp_path / 'report.md').read_text()
  assert '| main | main | 500 / 499 | 50.00 | 60.00 |' in text
  assert '| stylized | main | 100 / - | 50.00 |  |' in text
  assert '| one | stylized | texture | 12.50 | 37.50 | 25.00 | 80 |' in text


@pytest.mark.parametrize('drawn', [True, False])
def test_two_runs_side_by_side(tmp_path, monkeypatch, caplog, drawn):
  if not drawn:
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
  runs = [
    _run('one', {'main': _plain(0.5), 'c': _corrupted('corruptions', 1)}),
    _run('two', {'main': _plain(0.6), 'c': _corrupted('corruptions', 0.5)}),
  ]
  runs[1].results['c']['evaluated']['strengths'] = 'cifar_c'
  report.write(runs, str(tmp_path))
  text = (tmp_path / 'report.md').read_text()
  assert 'two: strengths of `cifar_c`.' in text and 'one: str' not in text
  assert '| main | main | 500 | 50.00 | 60.00 |' in text
  assert '| corruption | one, mean error | two, mean error |' in text
  assert '| fog | 43.00 | 21.50 |' in text
  assert '| **mean error** | **39.00** | **19.50** |' in text
  assert 'mCE |' not in text
  assert (tmp_path / 'c.png').exists() == drawn == ('![c](c.png)' in text)
  if not drawn:
    assert 'requirements-results.txt' in caplog.text
