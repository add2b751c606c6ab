from pathlib import Path
import sys

import pytest

from tools import compare_stacks
from tools.comparing import stacks

_ROOT = Path(__file__).parents[1]


def _other_python():
  """Returns the Python of the other stack, which may not be there."""
  name = '.venv' if sys.version_info >= (3, 12) else '.venv-newer'
  return _ROOT / name / 'bin' / 'python'


@pytest.mark.slow
@pytest.mark.skipif(not _other_python().exists(), reason='one stack only')
def test_each_stack_reads_what_the_other_writes():
  result = stacks.compare(compare_stacks.__file__, str(_other_python()))
  assert len(result) == 3, result  # Two versions of TensorFlow.
  assert stacks.agrees(result), result


def test_disagreement_is_noticed():
  good = {'raw_main': 1e-6, 'trained_to': 8}
  assert stacks.agrees({'a read by b': good, 'b read by a': good})
  for bad in ({'saved_model': 1e-4}, {'trained_to': 4}):
    result = {'a read by b': good, 'b read by a': {**good, **bad}}
    assert not stacks.agrees(result)
