import json
import os

import pytest

from efficientnet_advprop.app import modes
from efficientnet_advprop.base import errors
from efficientnet_advprop.export import exported_network
from efficientnet_advprop.testing import whole_runs


def _places(text):
  """What lies where, by the lines at the end of a text."""
  lines = text.split('\n\n')[-1].splitlines()
  return dict(line.split(maxsplit=1) for line in lines)


def test_an_outcome_s_exit_code_says_whether_something_failed():
  assert modes.Outcome('all').exit_code == 0
  assert modes.Outcome('most', ('The test a failed: why',)).exit_code == 1


@pytest.mark.slow
def test_the_best_checkpoint_is_tested_and_exported(tmp_path):
  config = whole_runs.config(
    'train.keep_best=loss',
    'train.eval_epochs=0.0128',  # Every two steps.
    'eval.checkpoint=best',
    'eval.tests.auxiliary.domain=adversarial',
    'export.verified_images=6',
  )
  model_dir, export_dir = tmp_path / 'run', tmp_path / 'export'
  outcome = modes.train_and_eval(
    config, whole_runs.ONE_DEVICE, os.fspath(model_dir), os.fspath(export_dir)
  )
  assert outcome.exit_code == 0
  best = json.loads((model_dir / 'best.json').read_text())
  scores = {int(step): loss for step, loss in best['scores'].items()}
  assert sorted(scores) == [2, 4, 6]
  step = min(scores, key=scores.get)
  result = json.loads((model_dir / 'eval.json').read_text())
  assert (result['step'], result['loss']) == (step, scores[step])
  again = modes.export(config, os.fspath(model_dir), os.fspath(export_dir))
  versions = [
    _places(text)['SavedModel'] for text in (outcome.text, again.text)
  ]
  assert versions[0] != versions[1]
  for version in versions:
    assert os.path.dirname(version) == os.fspath(export_dir)
    network = exported_network.ExportedNetwork(version)
    assert network.facts['step'] == step


def test_an_export_that_fails_leaves_the_rest(tmp_path, monkeypatch, caplog):
  """The disk has become full since it was checked."""

  def fail(*_):
    raise errors.ExportError('no space left')

  monkeypatch.setattr(modes.export_lib, 'export', fail)
  config = whole_runs.config('eval.tests.auxiliary.domain=adversarial')
  model_dir = tmp_path / 'run'
  outcome = modes.train_and_eval(
    config, whole_runs.ONE_DEVICE, os.fspath(model_dir), os.fspath(tmp_path)
  )
  assert outcome.failures == ('The export failed: no space left',)
  assert outcome.exit_code == errors.EXIT_INCOMPLETE
  assert outcome.text.endswith(outcome.failures[0])
  assert 'The export failed: no space left' in caplog.text
  assert 'auxiliary' in outcome.text and 'SavedModel' not in outcome.text
  assert (model_dir / 'evals').is_dir() and (model_dir / 'attack.png').exists()
