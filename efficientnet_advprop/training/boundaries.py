"""The steps at which the host logs, saves and evaluates.

A compiled host loop runs whole log intervals. A checkpoint or an evaluation is
made at the end of the interval in which it is due.
"""

import math

from efficientnet_advprop import config as config_lib


def next_boundary(step: int, config: config_lib.Config) -> int:
  """Returns the end of the log interval that begins with `step`."""
  log_steps = config.train.log_steps
  boundary = (step // log_steps + 1) * log_steps
  return min(boundary, config.train_steps)


def is_saved(step: int, config: config_lib.Config) -> bool:
  """Returns whether a checkpoint is due at this boundary."""
  return _is_due(step, _save_steps(config), config)


def is_evaluated(step: int, config: config_lib.Config) -> bool:
  """Returns whether an evaluation is due at this boundary."""
  return _is_due(step, _evaluation_steps(config), config)


def saves_left(step: int, config: config_lib.Config) -> int:
  """Returns how many checkpoints follow those up to `step`.

  An evaluation is always made after a checkpoint.
  """
  due = _due(step, _save_steps(config), config)
  return len(due | _due(step, _evaluation_steps(config), config))


def evaluations_left(step: int, config: config_lib.Config) -> int:
  """Returns how many evaluations follow those up to `step`."""
  return len(_due(step, _evaluation_steps(config), config))


def _save_steps(config: config_lib.Config) -> float:
  return config.train.checkpoint_steps or config.steps_per_epoch


def _evaluation_steps(config: config_lib.Config) -> float:
  return config.train.eval_epochs * config.steps_per_epoch


def _is_due(step: int, every: float, config: config_lib.Config) -> bool:
  """Returns whether the interval that ends here holds a multiple of `every`."""
  log_steps = config.train.log_steps
  previous = (step - 1) // log_steps * log_steps
  return step == config.train_steps or step // every > previous // every


def _due(step: int, every: float, config: config_lib.Config) -> set[int]:
  """Returns the boundaries after `step` at which something is due."""
  last, log_steps = config.train_steps, config.train.log_steps
  if step >= last:
    return set()
  every = max(every, log_steps)  # One interval holds no two of them.
  multiples = (
    number * every
    for number in range(int(step // every) + 1, int(last // every) + 1)
  )
  ends = {math.ceil(multiple / log_steps) * log_steps for multiple in multiples}
  return {min(end, last) for end in ends} | {last}
