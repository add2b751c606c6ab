from pathlib import Path
import sys

import pytest

from tools import compare_stacks

_ROOT = Path(__file__).parents[1]


def _other_python():
  """The Python of the stack that this one is not, if it is set up here."""
  name = '.venv' if sys.version_info >= (3, 12) else '.venv-newer'
  return _ROOT / name / 'bin' / 'python'


@pytest.mark.slow
@pytest.mark.skipif(not _other_python().exists(), reason='one stack only')
def test_each_stack_reads_what_the_other_writes():
  result = compare_stacks.compare(str(_other_python()))
  assert len(result) == 3, result  # Two versions of TensorFlow.
  assert compare_stacks.agrees(result), result


def test_disagreement_is_noticed():
  good = {'raw_main': 1e-6, 'trained_to': 8}
  assert compare_stacks.agrees({'a read by b': good, 'b read by a': good})
  for bad in ({'saved_model': 1e-4}, {'trained_to': 4}):
    result = {'a read by b': good, 'b read by a': {**good, **bad}}
    assert not compare_stacks.agrees(result)
