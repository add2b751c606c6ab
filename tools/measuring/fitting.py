"""The time and the memory of AdvPropModel under `fit`."""

import functools
import subprocess
import time
from typing import Any, Callable, NamedTuple

import numpy as np

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.fit import advprop_model
from tools.measuring import rounds as rounds_lib

# Imported after the package, which selects Keras 2.
import tensorflow as tf  # isort: skip

_NUM_CLASSES = 10
# Pixels of the networks that rescale inside, and of the others.
_RESCALING = 'EfficientNet'


class Setting(NamedTuple):
  """What all networks and variants have in common."""

  image_size: int = 96  # In pixels.
  batch_size: int = 16  # Images in a step.
  rounds: int = 9  # Rounds, each with one turn of every variant.
  steps: int = 2  # Steps of a turn.


def pixel_range(name: str) -> tuple[int, int]:
  """Returns the values of black and white that a network expects."""
  return (0, 255) if name.startswith(_RESCALING) else (-1, 1)


def compiled(
  setting: Setting, name: str, method: str, attack_steps: int = 1
) -> tf.keras.Model:
  """Builds and compiles a network.

  Args:
    setting: what all variants have in common.
    name: a function of keras.applications.
    method: of AdvPropModel; empty for the network itself.
    attack_steps: of PGD.
  """
  size = setting.image_size
  tf.keras.utils.set_random_seed(0)
  build = getattr(tf.keras.applications, name)
  model = build(weights=None, classes=_NUM_CLASSES, input_shape=(size, size, 3))
  if method:
    attack = config_lib.AttackConfig(epsilon=4, num_steps=attack_steps)
    model = advprop_model.AdvPropModel(
      model, attack, method, pixel_range=pixel_range(name)
    )
  model.compile(
    tf.keras.optimizers.SGD(0.01), loss='sparse_categorical_crossentropy'
  )
  return model


def data(setting: Setting, name: str) -> tf.data.Dataset:
  """Returns the batches of one turn, all of the same random images."""
  low, high = pixel_range(name)
  random = np.random.default_rng(0)
  shape = setting.batch_size, setting.image_size, setting.image_size, 3
  images = random.uniform(low, high, shape).astype('float32')
  labels = random.integers(0, _NUM_CLASSES, setting.batch_size)
  batch = tf.data.Dataset.from_tensors((images, labels))
  return batch.repeat(setting.steps)


def seconds(
  turns: dict[str, Callable[[], Any]], rounds: int
) -> dict[str, np.ndarray]:
  """Returns the processor time of each variant's turn in each round."""
  for turn in turns.values():
    turn()  # Traces.
  found: dict[str, list[float]] = {variant: [] for variant in turns}
  for _ in range(rounds):
    for variant, turn in turns.items():
      began = time.process_time()
      turn()
      found[variant].append(time.process_time() - began)
  return {variant: np.array(times) for variant, times in found.items()}


def ratios(setting: Setting, name: str) -> dict[str, float]:
  """Measures the variants of a network against its plain `fit`."""
  methods = {'plain': '', 'vanilla': 'vanilla', 'pgd1': 'advprop'}
  batches = data(setting, name)
  turns: dict[str, Callable[[], Any]] = {}
  for variant, method in methods.items():
    model = compiled(setting, name, method)
    turns[variant] = functools.partial(model.fit, batches, verbose=0)
  found = seconds(turns, setting.rounds)
  plain = found.pop('plain')
  return {
    f'{variant}_{name}': round(float(np.median(times / plain)), 3)
    for variant, times in found.items()
  }


def extra_memory(setting: Setting, name: str, attack_steps: int) -> int:
  """Runs two steps; returns the memory that they take above the network, kB."""
  model = compiled(setting, name, 'advprop', attack_steps)
  batches = data(setting, name).take(2)
  before = rounds_lib.held_memory('VmRSS')
  model.fit(batches, verbose=0)
  return rounds_lib.held_memory('VmHWM') - before


def memory_ratio(command: list[str], setting: Setting, name: str) -> float:
  """Measures five attack steps against one, each in a new process.

  Args:
    command: starts benchmark_fit, whose --attack_steps prints `extra_memory`.
    setting: what all variants have in common.
    name: of the network.
  """
  peaks = []
  for attack_steps in (5, 1):
    part = [
      *(*command, f'--networks={name}'),
      *(f'--attack_steps={attack_steps}', f'--image_size={setting.image_size}'),
      f'--batch_size={setting.batch_size}',
    ]
    done = subprocess.run(part, check=True, stdout=subprocess.PIPE, text=True)
    peaks.append(int(done.stdout.splitlines()[-1]))
  return round(peaks[0] / peaks[1], 3)
