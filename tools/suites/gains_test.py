import json
from pathlib import Path

import numpy as np
import pytest

from efficientnet_advprop.base import paths
from tools.suites import gains
from tools.suites import runner
from tools.suites import suite as suite_lib

_RESULTS = Path(__file__).parents[2] / 'docs' / 'results'


@pytest.fixture(name='directory')
def _directory(tmp_path, monkeypatch):
  """A folder of results of two cells, and comparisons of which one is there."""
  lines = [
    {'cell': cell, 'seed': seed, 'accuracies': {'clean': value}}
    for cell, values in (('a', [70.0, 72.0, 71.0]), ('b', [69.0, 69.0, 70.0]))
    for seed, value in enumerate(values)
  ]
  text = '\n'.join(json.dumps(line) for line in lines)
  (tmp_path / 'some.jsonl').write_text(text)
  comparisons = (
    gains.Comparison('a network', gains.SAME, 'some', 'a', 'b'),
    gains.Comparison('a network', gains.AS_MUCH, 'other', 'a', 'b'),
  )
  monkeypatch.setattr(gains, 'COMPARISONS', comparisons)
  return tmp_path


def test_gains_are_paired_and_have_the_interval_of_student(directory):
  stats = pytest.importorskip('scipy.stats')
  rows = gains.judge(str(directory))
  verdict = rows[0].found['clean']
  assert verdict.differences == [1.0, 3.0, 1.0]
  expected = stats.ttest_rel([70, 72, 71], [69, 69, 70]).confidence_interval()
  assert verdict.low == pytest.approx(expected.low)
  assert verdict.high == pytest.approx(expected.high)
  unknown = ' | not measured'
  first, second = gains.table(rows).splitlines()[2:]
  assert first.endswith('| 3 | +1.7 (-1.2 to +4.5)' + unknown + unknown + ' |')
  assert second.endswith('| 0' + 3 * unknown + ' |')


def test_the_plot_shows_what_was_run(directory, tmp_path):
  image = pytest.importorskip('matplotlib.image')
  path = tmp_path / 'gains.png'
  gains.plot(gains.judge(str(directory)), str(path))
  pixels = image.imread(path)[..., :3]
  blue = np.array([31, 119, 180]) / 255  # Of the first rival.
  assert np.all(np.abs(pixels - blue) < 0.02, axis=-1).sum() > 50


def test_comparisons_name_cells_of_their_suites():
  # `fit` is of tools/compare_fit.py, which is no suite.
  for name in {comparison.file for comparison in gains.COMPARISONS} - {'fit'}:
    lines = runner.read_lines(str(_RESULTS / f'{name}.jsonl'))
    suite = suite_lib.load(paths.recipe(f'suites/{name}'), lines)
    for comparison in gains.COMPARISONS:
      if comparison.file == name:
        assert {comparison.cell, comparison.rival_cell} <= set(suite.cells)


def test_the_published_page_shows_the_published_lines():
  pytest.importorskip('scipy')
  table = gains.table(gains.judge(str(_RESULTS)))
  assert table in (_RESULTS / 'README.md').read_text()
