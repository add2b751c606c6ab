"""Measures the training step against a plain Keras vanilla step.

The peer is the same network from tf.keras.applications, with the same
optimizer, batch and image size, in a plain `tf.function`. Steps of all variants
take turns; each ratio is taken within one round, because absolute rates drift
and the machine may be shared. Ratios of CPU time are the ones to go by. The
last line is JSON, every value better when smaller:

  vanilla_SIZE, pgd1_SIZE, pgd5_SIZE  CPU time over the plain Keras step's
  fast_SIZE                           of Fast AdvProp, likewise, for each image
                                      of the whole batch
  per_attack_step                     of a further attack step, likewise, at
                                      the first image size
  evaluation_SIZE                     CPU time of an evaluation step over that
                                      of the bare network on the same images
  first_step_pgd5                     seconds of tracing, compiling and running,
                                      in a process of its own, first image size
  memory_pgd7_over_pgd1               of the peaks of resident memory, likewise

Without --image_size it measures 224 px at batch 16 and 64 px at batch 64.

  .venv/bin/python tools/benchmark_step.py --quick
"""

from collections.abc import Callable, Sequence
import json
import os
import subprocess
import sys
import time
from typing import NamedTuple

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import app
from absl import flags
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import devices
from efficientnet_advprop.app import program
from efficientnet_advprop.evaluation import evaluator
from efficientnet_advprop.models import factory
from efficientnet_advprop.training import optimizers
from efficientnet_advprop.training import step as step_lib

# Behind the package, which chooses Keras and kernels before TensorFlow loads.
import tensorflow as tf  # isort: skip

_SETTINGS: tuple[tuple[int, int], ...] = (
  (224, 16),
  (64, 64),
)  # image size and batch size
_NUM_CLASSES = 1000
# Epsilon of the paper's attackers by their number of steps.
_EPSILONS = {1: 1, 5: 4, 7: 6}
Step = Callable[[], object]
Seconds = dict[str, np.ndarray]  # [rounds] by variant

_FLAGS = program.flag_values(__name__)
_MODEL_NAME = flags.DEFINE_enum(
  'model_name',
  'efficientnet-b0',
  # Keras has no larger ones.
  [f'efficientnet-b{number}' for number in range(8)],
  'the network',
  flag_values=_FLAGS,
)
_IMAGE_SIZE = flags.DEFINE_integer(
  'image_size', None, 'in pixels', 32, flag_values=_FLAGS
)
_BATCH_SIZE = flags.DEFINE_integer(
  'batch_size', 16, 'with --image_size', 1, flag_values=_FLAGS
)
_STEPS = flags.DEFINE_integer(
  'steps', 9, 'rounds, one step of each variant', 1, flag_values=_FLAGS
)
_QUICK = flags.DEFINE_bool(
  'quick',
  False,
  '3 rounds, 32 px, batch 32, no figures of memory',
  flag_values=_FLAGS,
)
_ALONE = flags.DEFINE_integer(
  'alone',
  None,
  'used between the processes: take 3 steps with so many attack steps',
  flag_values=_FLAGS,
)


def run_config(
  model_name: str, size: int, batch_size: int, attack_steps: int
) -> config_lib.Config:
  """A run of AdvProp with so many attack steps; of vanilla with 0."""
  values = {
    'model': {'name': model_name, 'image_size': size},
    'data': {'num_classes': _NUM_CLASSES, 'num_train_images': 1_281_167},
    'train': {
      'method': 'advprop' if attack_steps else 'vanilla',
      'batch_size': batch_size,
    },
  }
  if attack_steps:
    epsilon = _EPSILONS[attack_steps]
    values['attack'] = {'epsilon': epsilon, 'num_steps': attack_steps}
  return config_lib.from_dict(values)


def fast_config(
  model_name: str, size: int, batch_size: int
) -> config_lib.Config:
  """A run of Fast AdvProp with about so many images, a multiple of 5."""
  values = {
    'model': {'name': model_name, 'image_size': size},
    'attack': {'target': 'label', 'batch_norm': 'train'},
    'data': {'num_classes': _NUM_CLASSES, 'num_train_images': 1_281_167},
    'train': {
      'method': 'fast_advprop',
      'batch_size': max(1, round(batch_size / 5)) * 5,
    },
  }
  return config_lib.from_dict(values)


def random_batch(size: int, batch_size: int) -> dict[str, tf.Tensor]:
  """Images in [-1, 1], labels and seeds."""
  shape = [batch_size, size, size, 3]
  examples = tf.range(batch_size)
  return {
    'image': tf.random.stateless_uniform(shape, [0, 0], -1, 1),
    'label': examples % _NUM_CLASSES,
    'seed': tf.stack([examples, examples], 1),
  }


def our_step(config: config_lib.Config, batch: dict[str, tf.Tensor]) -> Step:
  """The step as training runs it on one device."""
  strategy = devices.create_strategy('one_device')
  with strategy.scope():
    model, average = (
      factory.create_model(
        config.model,
        _NUM_CLASSES,
        config.auxiliary_domains,
        compiled=devices.compiles_layers(strategy),
        rematerialized=config.train.rematerialize,
      )
      for _ in range(2)
    )
    optimizer = optimizers.create_optimizer(config, model)

  @tf.function
  def step() -> tf.Tensor:
    arguments = model, average, optimizer, batch, config
    return strategy.run(step_lib.train_step, args=arguments)

  return step


def plain_step(model_name: str, size: int, batch: dict[str, tf.Tensor]) -> Step:
  """The peer: a vanilla step of plain Keras."""
  number = model_name.rsplit('-b', 1)[1]
  model = getattr(tf.keras.applications, f'EfficientNetB{number}')(
    weights=None, input_shape=(size, size, 3), classifier_activation=None
  )
  optimizer = tf.keras.optimizers.RMSprop(
    1e-4, rho=0.9, momentum=0.9, epsilon=1e-3
  )

  @tf.function
  def step() -> tf.Tensor:
    with tf.GradientTape() as tape:
      logits = model(batch['image'], training=True)
      losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        batch['label'], logits
      )
      loss = tf.reduce_mean(losses)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return loss

  return step


def evaluation_steps(
  config: config_lib.Config, batch: dict[str, tf.Tensor]
) -> dict[str, Step]:
  """The bare network in inference mode, `plain`, and a step of evaluation."""
  strategy = devices.create_strategy('one_device')
  with strategy.scope():
    model = factory.create_model(
      config.model,
      _NUM_CLASSES,
      compiled=devices.compiles_layers(strategy),
    )
  weights = tf.ones_like(batch['label'], tf.float32)
  judge = evaluator.Evaluator(config, strategy, model)
  evaluate = judge.step_for(config_lib.NamedTestConfig())

  @tf.function
  def forward() -> tf.Tensor:
    return model(batch['image'], training=False)

  return {
    'plain': forward,
    'evaluation': lambda: evaluate({**batch, 'weight': weights}),
  }


def take_turns(steps: dict[str, Step], rounds: int) -> tuple[Seconds, Seconds]:
  """CPU and wall seconds of every variant, after two rounds to warm up."""
  cpu: dict[str, list[float]] = {name: [] for name in steps}
  wall: dict[str, list[float]] = {name: [] for name in steps}
  for _ in range(rounds + 2):
    for name, step in steps.items():
      cpu_began, wall_began = time.process_time(), time.monotonic()
      step()
      cpu[name].append(time.process_time() - cpu_began)
      wall[name].append(time.monotonic() - wall_began)
  return tuple(  # type: ignore[return-value]  # Two, whatever mypy infers.
    {name: np.array(values[2:]) for name, values in times.items()}
    for times in (cpu, wall)
  )


def ratios(seconds: Seconds) -> Seconds:
  """To the plain step of the same round."""
  return {name: times / seconds['plain'] for name, times in seconds.items()}


def table(cpu: Seconds, wall: Seconds) -> str:
  """A line for each variant: milliseconds and ratios, with quartiles."""
  lines = [f'{"":16}{"CPU ms":>9}{"ratio":>8}{"quartiles":>14}{"wall":>8}']
  wall_ratios = ratios(wall)
  for name, values in ratios(cpu).items():
    low, high = np.percentile(values, [25, 75])
    lines.append(
      f'{name:16}{np.median(cpu[name]) * 1000:9.0f}{np.median(values):8.2f}'
      f'{f"{low:.2f}-{high:.2f}":>14}{np.median(wall_ratios[name]):8.2f}'
    )
  return '\n'.join(lines)


def measure(
  model_name: str, size: int, batch_size: int, rounds: int
) -> dict[str, float]:
  """Prints tables; returns figures by their names, without the size."""
  batch = random_batch(size, batch_size)
  steps = {'plain': plain_step(model_name, size, batch)}
  for name, attack_steps in (('vanilla', 0), ('pgd1', 1), ('pgd5', 5)):
    config = run_config(model_name, size, batch_size, attack_steps)
    steps[name] = our_step(config, batch)
  config = fast_config(model_name, size, batch_size)
  fast_size = config.train.batch_size
  steps['fast'] = our_step(config, random_batch(size, fast_size))
  print(
    f'{model_name}, {size} px, batch {batch_size} (fast: {fast_size}),'
    f' {rounds} rounds'
  )
  cpu, wall = take_turns(steps, rounds)
  print(table(cpu, wall), flush=True)
  figures = {name: float(np.median(v)) for name, v in ratios(cpu).items()}
  figures['fast'] *= batch_size / fast_size
  config = run_config(model_name, size, batch_size, 0)
  evaluating = evaluation_steps(config, batch)
  cpu, wall = take_turns(evaluating, rounds)
  print(table(cpu, wall), flush=True)
  return {**figures, 'evaluation': float(np.median(ratios(cpu)['evaluation']))}


class Alone(NamedTuple):
  """What a new process that takes 3 steps needs."""

  peak: int  # Of resident memory, kB.
  first_cpu: float  # Seconds of the first step: it is traced and compiled.
  first_wall: float


def measure_alone(
  model_name: str, size: int, batch_size: int, attack_steps: int
) -> Alone:
  """Takes 3 steps with so many attack steps in a process of its own."""
  command = [sys.executable, os.path.abspath(__file__)]
  command += [f'--model_name={model_name}', f'--image_size={size}']
  command += [f'--batch_size={batch_size}', f'--alone={attack_steps}']
  output = subprocess.run(command, check=True, capture_output=True, text=True)
  return Alone(*json.loads(output.stdout.splitlines()[-1]))


def held_memory(key: str) -> int:
  """Of this process, in kB: `VmRSS` is held now, `VmHWM` its peak so far."""
  # getrusage would count what the parent held when it started this process.
  with open('/proc/self/status', encoding='ascii') as status:
    lines = dict(line.split(':', 1) for line in status)
  return int(lines[key].split()[0])


def _run_alone(attack_steps: int) -> Alone:
  size, batch_size = _IMAGE_SIZE.value or 224, _BATCH_SIZE.value or 16
  config = run_config(_MODEL_NAME.value, size, batch_size, attack_steps)
  step = our_step(config, random_batch(size, batch_size))
  cpu_began, wall_began = time.process_time(), time.monotonic()
  step()
  first = time.process_time() - cpu_began, time.monotonic() - wall_began
  for _ in range(2):
    step()
  return Alone(held_memory('VmHWM'), *first)


def main(_: Sequence[str]) -> None:
  """Prints a table for each setting, and the figures as JSON."""
  tf.keras.utils.set_random_seed(0)
  tf.config.experimental.enable_op_determinism()
  if _ALONE.value is not None:
    print(json.dumps(_run_alone(_ALONE.value)))
    return
  name, rounds, settings = _MODEL_NAME.value, _STEPS.value, _SETTINGS
  if _IMAGE_SIZE.value is not None:
    settings = ((_IMAGE_SIZE.value, _BATCH_SIZE.value),)
  if _QUICK.value:
    settings, rounds = ((32, 32),), 3
  figures: dict[str, float] = {}
  for size, batch_size in settings:
    measured = measure(name, size, batch_size, rounds)
    for variant in ('vanilla', 'fast', 'pgd1', 'pgd5', 'evaluation'):
      figures[f'{variant}_{size}'] = measured[variant]
    further = (measured['pgd5'] - measured['pgd1']) / 4
    figures.setdefault('per_attack_step', further)
  if not _QUICK.value:
    alone = {n: measure_alone(name, *settings[0], n) for n in (1, 5, 7)}
    first = alone[5]
    print(
      f'first step of PGD5: {first.first_wall:.1f} s,'
      f' {first.first_cpu:.1f} s of CPU time'
    )
    peaks = {n: run.peak // 1024 for n, run in alone.items()}
    print(f'peak memory of PGD1, PGD7: {peaks[1]} MB, {peaks[7]} MB')
    figures['first_step_pgd5'] = first.first_wall
    figures['memory_pgd7_over_pgd1'] = alone[7].peak / alone[1].peak
  print(json.dumps({key: round(value, 3) for key, value in figures.items()}))


if __name__ == '__main__':
  app.run(main, flags_parser=program.parser('benchmark_step', _FLAGS))
