"""The measurement at ImageNet's size, on a few records."""

import json

from efficientnet_advprop.data import sources
from tools.measuring import scale


def test_the_records_are_as_many_as_asked_for(tmp_path):
  size = scale.write(str(tmp_path), 50, 7)
  config = scale.run_config(str(tmp_path), 50, 8, 16)
  source = sources.find(config.data, 'train')
  assert source.counts == (7, 7, 7, 7, 7, 7, 8)
  assert size == sum(p.stat().st_size for p in tmp_path.glob('train-0*'))


def test_the_last_line_is_json_of_the_figures(tmp_path, capsys):
  scale.report(scale.measure(50, 7, 8, 16, str(tmp_path)))
  figures = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert figures['records'] == 50
  assert figures['resumed_step'] == 59
  for name in 'count', 'manifest', 'start', 'resume':
    assert figures[f'{name}_seconds'] >= 0
    assert figures[f'{name}_cpu_seconds'] >= 0
  assert not list(tmp_path.iterdir())
