"""A run from its first step to its last, which the tests here share."""

from collections.abc import Iterator

import pytest

from efficientnet_advprop import execution
from efficientnet_advprop.testing import whole_runs
from efficientnet_advprop.training import trainer as trainer_lib


@pytest.fixture(scope='module')
def plain_layers() -> Iterator[None]:
  """Compiles nothing, for speed; command_line_test.py runs compiled layers."""
  with pytest.MonkeyPatch.context() as patch:
    plain = execution.Execution(layers=False, step=False)
    patch.setattr(execution, 'choose', lambda *_: plain)
    yield


@pytest.fixture(scope='module')
def whole(
  tmp_path_factory: pytest.TempPathFactory, plain_layers: None
) -> tuple[trainer_lib.Trainer, str, list[int]]:
  """A run that nothing interrupted; its folder; the steps it evaluated."""
  del plain_layers
  model_dir = str(tmp_path_factory.mktemp('whole'))
  evaluated: list[int] = []
  trainer = whole_runs.start(model_dir)

  def evaluate(step: int) -> dict[str, float]:
    evaluated.append(step)
    return {}

  trainer.train(evaluate)
  return trainer, model_dir, evaluated
