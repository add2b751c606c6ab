import types

import numpy as np
import pytest

from tools.suites import plots
from tools.suites import suite as suite_lib
from tools.suites import verdicts as verdicts_lib


def _same_pixels(first, second):
  image = pytest.importorskip('matplotlib.image')
  pixels = [image.imread(str(path)) for path in (first, second)]
  return pixels[0].shape == pixels[1].shape and np.array_equal(*pixels)


def test_cells_that_were_not_run_have_no_row(tmp_path):
  lines = {
    (cell, seed): {'accuracies': {'clean': 70.0 + seed}}
    for cell in 'ab'
    for seed in range(3)
  }
  some = {key: line for key, line in lines.items() if key[0] == 'a'}
  for name, cells, results in (
    ('one', ['a'], some),
    ('missing', ['a', 'b'], some),
    ('both', ['a', 'b'], lines),
  ):
    suite = types.SimpleNamespace(cells=cells)
    plots.plot_cells(suite, results, str(tmp_path / f'{name}.png'))
  assert _same_pixels(tmp_path / 'one.png', tmp_path / 'missing.png')
  assert not _same_pixels(tmp_path / 'one.png', tmp_path / 'both.png')


def test_claims_that_were_not_tested_have_no_row(tmp_path):
  tested, other = (suite_lib.Claim(text, '', ()) for text in ('one', 'another'))
  verdict = verdicts_lib.Verdict(
    [1, 2, 3], 2.0, -0.5, 4.5, 0.07, 2, 'undecided'
  )
  for name, claims, verdicts in (
    ('one', [tested], [verdict]),
    ('two', [other, tested], [None, verdict]),
    ('none', [other], [None]),
  ):
    plots.plot_claims(claims, verdicts, str(tmp_path / f'{name}.png'))
  assert _same_pixels(tmp_path / 'one.png', tmp_path / 'two.png')
  assert not _same_pixels(tmp_path / 'one.png', tmp_path / 'none.png')
