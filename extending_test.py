"""Runs the examples of docs/extending.md as they are written there."""

import pytest

from efficientnet_advprop.config import methods as table
from efficientnet_advprop.methods import paper
from efficientnet_advprop.testing import pages


def _example(heading):
  """The Python block of a section."""
  blocks = pages.blocks('docs/extending.md')
  found = [block for block in blocks if block.heading == f'## {heading}']
  (code,) = (block.text for block in found if block.language == 'python')
  return code


@pytest.fixture
def run(tmp_path, monkeypatch):
  """Runs an example in an empty folder; returns what it defines."""
  monkeypatch.chdir(tmp_path)

  def run_example(heading):
    code = _example(heading).replace("'hparams/", f"'{pages.ROOT}/hparams/")
    names: dict = {}
    exec(compile(code, heading, 'exec'), names)
    return names

  yield run_example
  for module in (table, paper):  # What an example has added.
    module.METHODS.pop('noise', None)


def test_own_attack(run):
  names = run('Your own attack')
  levels = abs(names['adversarial'] - names['images']).numpy() * 127.5
  assert 1 < levels.max() < 2.01
  # It raises the loss that it attacks.
  losses = [
    names['tf'].nn.sparse_softmax_cross_entropy_with_logits(
      names['labels'], names['network'](images, domain='adversarial')
    )
    for images in (names['images'], names['adversarial'])
  ]
  assert (losses[1] > losses[0]).numpy().all()


def test_own_method(run, tmp_path):
  names = run('Your own method')
  folder = tmp_path / 'runs' / 'noise'
  line = (folder / 'metrics.jsonl').read_text().splitlines()[-1]
  assert '"noise_loss": ' in line and '"clean_loss": ' in line
  norm = names['run'].model.stem.norm
  # Each domain's statistics have seen their own images.
  assert abs(norm.moving_mean - norm.norm_of('noise').moving_mean).numpy().any()


def test_own_network(run, tmp_path):
  names = run('Your own network')
  assert (tmp_path / 'shipped.keras').exists()
  assert 'adversarial_loss' in names['model'].history.history


def test_own_test_set(run, capsys):
  run('Your own test set')
  accuracy, count = capsys.readouterr().out.split()
  assert 0 <= float(accuracy) < 0.4 and count == '500'
