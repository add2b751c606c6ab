import json

import pytest

from tools import benchmark_memory


def _flags(**values):
  settings = dict(
    model_name='resnet-50', image_size=32, batch_size=8, parts=2, variant=None
  )
  return type('Flags', (), {**settings, 'variants': '', **values})


def test_variants_are_runs(monkeypatch):
  monkeypatch.setattr(benchmark_memory, 'FLAGS', _flags())
  runs = {v: benchmark_memory.run_config(v) for v in benchmark_memory.VARIANTS}
  steps = {name: run.attack.num_steps for name, run in runs.items()}
  parts = {name: run.train.accumulation_steps for name, run in runs.items()}
  again = {name: run.train.rematerialize for name, run in runs.items()}
  assert steps.pop('pgd5') == 5 and set(steps.values()) == {1}
  assert {name for name, n in parts.items() if n == 2} == {
    'accumulated',
    'both',
  }
  assert {name for name, on in again.items() if on} == {
    'rematerialized',
    'both',
  }


def test_the_last_line_is_json(monkeypatch, capsys):
  flags = _flags(variants='pgd1,both')
  monkeypatch.setattr(benchmark_memory, 'FLAGS', flags)
  measure = lambda variant: (len(variant), [2.0, 1.0])
  monkeypatch.setattr(benchmark_memory, '_measure', measure)
  benchmark_memory.main(['benchmark_memory'])
  last = capsys.readouterr().out.splitlines()[-1]
  assert json.loads(last) == {'pgd1': 4, 'both': 4}


@pytest.mark.slow
def test_parts_and_recomputation_take_less(monkeypatch):
  flags = _flags(image_size=64, batch_size=32, parts=4)
  monkeypatch.setattr(benchmark_memory, 'FLAGS', flags)
  stored, less = (
    benchmark_memory._measure(variant)[0] for variant in ('pgd1', 'both')
  )
  assert less < 0.8 * stored
