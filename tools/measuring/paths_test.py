"""The arithmetic and the output of the measurement of the input path."""

import json

from tools.measuring import paths as paths_lib
from tools.measuring import photographs


def _burn(milliseconds):
  """Returns a path that takes this CPU time per image, by the test's clock."""

  def path(count):
    _burn.clock += milliseconds * 1e-3 * count

  return path


def test_the_last_line_is_json_of_the_ratios(monkeypatch, capsys):
  _burn.clock = 0.0
  costs = {
    'autoaugment': 0.5,
    'autoaugment, official': 2.0,
    'input, decoding alone': 1.25,
    'input, plain view': 2.0,
    'input, augmented view': 2.5,
    'input, both views': 2.6,
    'input, official': 5.0,
    'input, pillow': 3.0,
  }
  paths = {name: _burn(cost) for name, cost in costs.items()}
  monkeypatch.setattr(paths_lib, 'input_paths', lambda *_: paths)
  monkeypatch.setattr(paths_lib.time, 'process_time', lambda: _burn.clock)
  pictures = photographs.Pictures('a name', [])
  paths_lib.report(pictures, rounds=3, images=100, size=224)
  *_, ceiling, last = capsys.readouterr().out.splitlines()
  assert ceiling == (
    'decode alone is 50% of our time: even free augmentation would give 2.50'
    ' times the official speed'
  )
  result = json.loads(last)
  assert result == {
    'pictures': 'a name',
    'autoaugment_over_official': 4.0,
    'ceiling_over_official': 4.0,
    'input_over_official': 2.0,
    'input_over_pil': 1.2,
    'two_views': 1.3,
    'decoding_share': 0.5,
    'free_augmentation_over_official': 2.5,
  }
