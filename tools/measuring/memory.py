"""The memory that a training step takes, by variant of the step."""

import json
import subprocess
import time
from typing import NamedTuple

from efficientnet_advprop import config as config_lib
from tools.measuring import rounds
from tools.measuring import steps


class Setting(NamedTuple):
  """What all variants have in common."""

  model_name: str
  image_size: int  # In pixels.
  batch_size: int  # Images in a step.
  parts: int  # Parts into which accumulation divides a batch.


class Variant(NamedTuple):
  """A way to run a step."""

  attack_steps: int
  in_parts: bool  # Accumulates the gradients of parts of the batch.
  rematerialize: bool  # Recomputes blocks in the backward pass.


VARIANTS = {
  'pgd1': Variant(1, False, False),
  'pgd5': Variant(5, False, False),
  'accumulated': Variant(1, True, False),
  'rematerialized': Variant(1, False, True),
  'both': Variant(1, True, True),
}


def run_config(setting: Setting, name: str) -> config_lib.Config:
  """Returns the run of a variant."""
  variant = VARIANTS[name]
  return config_lib.from_dict(
    {
      'model': {'name': setting.model_name, 'image_size': setting.image_size},
      'attack': {'epsilon': 4, 'num_steps': variant.attack_steps},
      'data': {
        'num_classes': steps.NUM_CLASSES,
        'num_train_images': steps.NUM_TRAIN_IMAGES,
      },
      'train': {
        'batch_size': setting.batch_size,
        'accumulation_steps': setting.parts if variant.in_parts else 1,
        'rematerialize': variant.rematerialize,
      },
    }
  )


def extra_memory(config: config_lib.Config) -> tuple[int, list[float]]:
  """Runs two steps in this process, which has run none before.

  Returns:
    The peak of memory above what the network takes, in kB, and the seconds of
    each step.
  """
  size, batch_size = config.model.image_size, config.train.batch_size
  step = steps.our_step(config, steps.random_batch(size, batch_size))
  before = rounds.held_memory('VmRSS')
  seconds = []
  for _ in range(2):
    began = time.monotonic()
    step()
    seconds.append(round(time.monotonic() - began, 1))
  return rounds.held_memory('VmHWM') - before, seconds


def measure(
  command: list[str], setting: Setting, name: str
) -> tuple[int, list[float]]:
  """Runs a variant in a new process.

  Args:
    command: starts benchmark_memory.
    setting: what all variants have in common.
    name: of the variant.

  Returns:
    The peak of memory above what the network takes, in MB, and the seconds of
    each step.
  """
  values = [f'--{key}={value}' for key, value in setting._asdict().items()]
  done = subprocess.run(
    [*command, f'--variant={name}', *values],
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  )
  kilobytes, seconds = json.loads(done.stdout.splitlines()[-1])
  return round(kilobytes / 1024), seconds
