r"""Measures what AdvProp costs under `fit`, against the network's own `fit`.

  .venv/bin/python tools/benchmark_fit.py --networks=MobileNetV2

For each network of keras.applications, steps of its own `fit`, of AdvPropModel
with the method vanilla, and of AdvPropModel with PGD of one step take turns, on
the same random images. Each ratio is of processor time within one round, and
the median over rounds counts. The last line is JSON; every value is better when
smaller:

  vanilla_NETWORK  AdvPropModel without AdvProp over plain `fit`; bar 1.02
  pgd1_NETWORK     AdvProp with one attack step over plain `fit`; bar 2.7, as
                   eight passes over three are 2.67
  memory_NETWORK   peak of memory with five attack steps over that with one,
                   each in a process of its own; bar 1.05
"""

from collections.abc import Sequence
import functools
import json
import os
import subprocess
import sys
import time
from typing import Any, Callable

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import app
from absl import flags
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import program
from efficientnet_advprop.fit import advprop_model
from tools import benchmark_step

# Imported after the package, which selects Keras 2.
import tensorflow as tf  # isort: skip

FLAGS = program.flag_values(__name__)
flags.DEFINE_string(
  'networks',
  'MobileNetV2,EfficientNetB0',
  'Names in keras.applications, with commas.',
  flag_values=FLAGS,
)
for _name, _number, _help in (
  ('image_size', 96, 'In pixels.'),
  ('batch_size', 16, 'Images in a step.'),
  ('rounds', 9, 'Rounds, each of one turn for every variant.'),
  ('steps', 2, 'Steps of a turn.'),
):
  flags.DEFINE_integer(_name, _number, _help, 1, flag_values=FLAGS)
flags.DEFINE_integer(
  'attack_steps', None, 'Used between the processes.', flag_values=FLAGS
)

_NUM_CLASSES = 10
# Pixels of the networks that rescale inside, and of the others.
_RESCALING = 'EfficientNet'


def pixel_range(name: str) -> tuple[int, int]:
  """Returns the values of black and white that a network expects."""
  return (0, 255) if name.startswith(_RESCALING) else (-1, 1)


def compiled(name: str, method: str, attack_steps: int = 1) -> tf.keras.Model:
  """Builds and compiles a network.

  Args:
    name: a function of keras.applications.
    method: of AdvPropModel; empty for the network itself.
    attack_steps: of PGD.
  """
  size = FLAGS.image_size
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


def data(name: str) -> tf.data.Dataset:
  """Returns the batches of one turn, all of the same random images."""
  low, high = pixel_range(name)
  random = np.random.default_rng(0)
  shape = FLAGS.batch_size, FLAGS.image_size, FLAGS.image_size, 3
  images = random.uniform(low, high, shape).astype('float32')
  labels = random.integers(0, _NUM_CLASSES, FLAGS.batch_size)
  batch = tf.data.Dataset.from_tensors((images, labels))
  return batch.repeat(FLAGS.steps)


def seconds(turns: dict[str, Callable[[], Any]]) -> dict[str, np.ndarray]:
  """Returns the processor time of each variant's turn in each round."""
  for turn in turns.values():
    turn()  # Traces.
  found: dict[str, list[float]] = {variant: [] for variant in turns}
  for _ in range(FLAGS.rounds):
    for variant, turn in turns.items():
      began = time.process_time()
      turn()
      found[variant].append(time.process_time() - began)
  return {variant: np.array(times) for variant, times in found.items()}


def ratios(name: str) -> dict[str, float]:
  """Measures the variants of a network against its plain `fit`."""
  methods = {'plain': '', 'vanilla': 'vanilla', 'pgd1': 'advprop'}
  batches = data(name)
  turns: dict[str, Callable[[], Any]] = {}
  for variant, method in methods.items():
    model = compiled(name, method)
    turns[variant] = functools.partial(model.fit, batches, verbose=0)
  found = seconds(turns)
  plain = found.pop('plain')
  return {
    f'{variant}_{name}': round(float(np.median(times / plain)), 3)
    for variant, times in found.items()
  }


def extra_memory(name: str, attack_steps: int) -> int:
  """Returns what two steps take above the network, in kB."""
  model, batches = compiled(name, 'advprop', attack_steps), data(name).take(2)
  before = benchmark_step.held_memory('VmRSS')
  model.fit(batches, verbose=0)
  return benchmark_step.held_memory('VmHWM') - before


def memory_ratio(name: str) -> float:
  """Measures five attack steps against one, in processes of their own."""
  peaks = []
  for attack_steps in (5, 1):
    command = [
      *(sys.executable, __file__, f'--networks={name}'),
      *(f'--attack_steps={attack_steps}', f'--image_size={FLAGS.image_size}'),
      f'--batch_size={FLAGS.batch_size}',
    ]
    done = subprocess.run(
      command, check=True, stdout=subprocess.PIPE, text=True
    )
    peaks.append(int(done.stdout.splitlines()[-1]))
  return round(peaks[0] / peaks[1], 3)


def _check(values: flags.FlagValues) -> None:
  known = [
    name
    for name in dir(tf.keras.applications)
    if isinstance(getattr(tf.keras.applications, name), type(_check))
  ]
  for name in values.networks.split(','):
    config_lib.check_choice('networks', name, known)


def main(_: Sequence[str]) -> None:
  """Measures all networks, or the memory of one."""
  names = FLAGS.networks.split(',')
  if FLAGS.attack_steps:
    print(extra_memory(names[0], FLAGS.attack_steps))
    return
  figures = {}
  for name in names:
    found = ratios(name)
    found[f'memory_{name}'] = memory_ratio(name)
    print(f'{name}: {found}', flush=True)
    figures.update(found)
  print(json.dumps(figures))


if __name__ == '__main__':
  app.run(main, flags_parser=program.parser('benchmark_fit', FLAGS, _check))
