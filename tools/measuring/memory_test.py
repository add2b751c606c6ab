import os
import sys

import pytest

from tools import benchmark_memory
from tools.measuring import memory

_SETTING = memory.Setting('resnet-50', image_size=32, batch_size=8, parts=2)


def test_variants_are_runs():
  runs = {name: memory.run_config(_SETTING, name) for name in memory.VARIANTS}
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


@pytest.mark.slow
def test_parts_and_recomputation_take_less():
  setting = _SETTING._replace(image_size=64, batch_size=32, parts=4)
  command = [sys.executable, os.path.abspath(benchmark_memory.__file__)]
  stored, less = (
    memory.measure(command, setting, name)[0] for name in ('pgd1', 'both')
  )
  assert less < 0.8 * stored
