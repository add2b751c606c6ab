import pytest

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.training import boundaries


def _config(**train):
  values = dict(batch_size=10, log_steps=20, **train)
  return config_lib.from_dict(
    {'data': {'num_train_images': 500}, 'train': values}
  )


def _boundaries(config):
  step, found = 0, []
  while step < config.train_steps:
    step = boundaries.next_boundary(step, config)
    found.append(step)
  return found


def test_what_is_due_comes_at_the_end_of_its_interval():
  config = _config(epochs=3, eval_epochs=1.1)  # 150 steps, 50 an epoch.
  assert _boundaries(config) == [20, 40, 60, 80, 100, 120, 140, 150]
  saved = [s for s in _boundaries(config) if boundaries.is_saved(s, config)]
  assert saved == [60, 100, 150]
  evaluated = [
    s for s in _boundaries(config) if boundaries.is_evaluated(s, config)
  ]
  assert evaluated == [60, 120, 150]


@pytest.mark.parametrize('every', [1, 20, 35, 50, 149, 1000])
@pytest.mark.parametrize('eval_epochs', [0.1, 1.1, 2, 10])
def test_what_is_left_is_counted(every, eval_epochs):
  """A checkpoint is made at every evaluation, too."""
  config = _config(epochs=3, checkpoint_steps=every, eval_epochs=eval_epochs)
  for step in (0, *_boundaries(config)):
    later = [s for s in _boundaries(config) if s > step]
    evaluated = {s for s in later if boundaries.is_evaluated(s, config)}
    saved = {s for s in later if boundaries.is_saved(s, config)}
    assert boundaries.evaluations_left(step, config) == len(evaluated)
    assert boundaries.saves_left(step, config) == len(saved | evaluated)
