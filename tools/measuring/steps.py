"""Training and evaluation steps of a network, and those of plain Keras."""

from collections.abc import Sequence
import json
import subprocess
import time
from typing import NamedTuple

import numpy as np

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import devices
from efficientnet_advprop import execution
from efficientnet_advprop.evaluation import evaluator
from efficientnet_advprop.models import factory
from efficientnet_advprop.training import optimizers
from efficientnet_advprop.training import step as step_lib
from tools.measuring import rounds as rounds_lib
from tools.measuring.rounds import Step

# Imported after the package, which selects Keras 2.
import tensorflow as tf  # isort: skip

NUM_CLASSES = 1000
NUM_TRAIN_IMAGES = 1_281_167
# Epsilon of the paper's attackers by their number of steps.
_EPSILONS = {1: 1, 5: 4, 7: 6}


def prepare() -> None:
  """Prepares this process as a run does, before it uses a device."""
  execution.prepare_gpus()
  tf.keras.utils.set_random_seed(0)
  tf.config.experimental.enable_op_determinism()


def run_config(
  model_name: str, size: int, batch_size: int, attack_steps: int
) -> config_lib.Config:
  """Returns a run of AdvProp with n attack steps, or of vanilla with none."""
  values = {
    'model': {'name': model_name, 'image_size': size},
    'data': {'num_classes': NUM_CLASSES, 'num_train_images': NUM_TRAIN_IMAGES},
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
  """Returns a run of Fast AdvProp with about `batch_size` images.

  The number of images is a multiple of 5, because a fifth of them is attacked.
  """
  values = {
    'model': {'name': model_name, 'image_size': size},
    'attack': {'target': 'label', 'batch_norm': 'train'},
    'data': {'num_classes': NUM_CLASSES, 'num_train_images': NUM_TRAIN_IMAGES},
    'train': {
      'method': 'fast_advprop',
      'batch_size': max(1, round(batch_size / 5)) * 5,
    },
  }
  return config_lib.from_dict(values)


def random_batch(size: int, batch_size: int) -> dict[str, tf.Tensor]:
  """Returns a batch of noise: images in [-1, 1], labels and seeds."""
  shape = [batch_size, size, size, 3]
  examples = tf.range(batch_size)
  return {
    'image': tf.random.stateless_uniform(shape, [0, 0], -1, 1),
    'label': examples % NUM_CLASSES,
    'seed': tf.stack([examples, examples], 1),
  }


def our_step(config: config_lib.Config, batch: dict[str, tf.Tensor]) -> Step:
  """Returns the step as training runs it on one device."""
  strategy = devices.create_strategy('one_device')
  chosen = execution.choose(strategy, config.train.compile)
  with strategy.scope():
    model, average = (
      factory.create_model(
        config.model,
        NUM_CLASSES,
        config.auxiliary_domains,
        compiled=chosen.layers,
        rematerialized=config.train.rematerialize,
      )
      for _ in range(2)
    )
    optimizer = optimizers.create_optimizer(config, model)

  @tf.function
  def step() -> tf.Tensor:
    arguments = model, average, optimizer, batch, config
    return strategy.run(step_lib.train_step, args=arguments)

  is_first = True

  def run() -> tf.Tensor:
    nonlocal is_first
    with step_lib.running(chosen, is_first):
      is_first = False
      return step()

  return run


def plain_step(model_name: str, size: int, batch: dict[str, tf.Tensor]) -> Step:
  """Returns the peer: a vanilla step of plain Keras."""
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
  """Returns `plain`, the bare network in inference mode, and `evaluation`."""
  strategy = devices.create_strategy('one_device')
  with strategy.scope():
    model = factory.create_model(
      config.model,
      NUM_CLASSES,
      compiled=execution.choose(strategy, config.train.compile).layers,
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


def measure(
  model_name: str, size: int, batch_size: int, rounds: int
) -> dict[str, float]:
  """Measures all variants of a step, and prints tables.

  Args:
    model_name: one of EfficientNet-B0 to -B7, which Keras has too.
    size: height and width of the images, in pixels.
    batch_size: images in a step.
    rounds: how often each variant is timed.

  Returns:
    The median ratio of CPU time (on a GPU, of wall time) to plain Keras, by
    variant; that of `fast` is for the same number of images.
  """
  batch = random_batch(size, batch_size)
  steps = {'plain': plain_step(model_name, size, batch)}
  for name, attack_steps in (('vanilla', 0), ('pgd1', 1), ('pgd5', 5)):
    config = run_config(model_name, size, batch_size, attack_steps)
    steps[name] = our_step(config, batch)
  config = fast_config(model_name, size, batch_size)
  fast_size = config.train.batch_size
  steps['fast'] = our_step(config, random_batch(size, fast_size))
  strategy = devices.create_strategy('one_device')
  print(execution.describe(strategy, execution.choose(strategy)))
  # CPU time says nothing about a GPU.
  by_wall = execution.device_type(strategy) != 'CPU'
  print(
    f'{model_name}, {size} px, batch {batch_size} (fast: {fast_size}),'
    f' {rounds} rounds'
  )
  cpu, wall = rounds_lib.take_turns(steps, rounds)
  print(rounds_lib.table(cpu, wall, by_wall), flush=True)
  ratios = rounds_lib.ratios(wall if by_wall else cpu)
  figures = {name: float(np.median(v)) for name, v in ratios.items()}
  figures['fast'] *= batch_size / fast_size
  config = run_config(model_name, size, batch_size, 0)
  evaluating = evaluation_steps(config, batch)
  cpu, wall = rounds_lib.take_turns(evaluating, rounds)
  print(rounds_lib.table(cpu, wall, by_wall), flush=True)
  ratios = rounds_lib.ratios(wall if by_wall else cpu)
  figures['evaluation'] = float(np.median(ratios['evaluation']))
  return figures


def measure_settings(
  model_name: str, settings: Sequence[tuple[int, int]], rounds: int
) -> dict[str, float]:
  """Measures steps of several sizes.

  Args:
    model_name: one of EfficientNet-B0 to -B7, which Keras has too.
    settings: pairs of image size and batch size.
    rounds: how often each variant is timed.

  Returns:
    Ratios by `<variant>_<size>`, and `per_attack_step` at the first size.
  """
  figures: dict[str, float] = {}
  for size, batch_size in settings:
    measured = measure(model_name, size, batch_size, rounds)
    for variant in ('vanilla', 'fast', 'pgd1', 'pgd5', 'evaluation'):
      figures[f'{variant}_{size}'] = measured[variant]
    further = (measured['pgd5'] - measured['pgd1']) / 4
    figures.setdefault('per_attack_step', further)
  return figures


class Alone(NamedTuple):
  """What a new process needs for 3 steps."""

  peak: int  # Peak of resident memory, or of the GPU's, in kB.
  first_cpu: float  # CPU seconds of the first step, which is compiled.
  first_wall: float  # Wall seconds of the first step.


def measure_alone(command: list[str]) -> dict[str, float]:
  """Measures the first step and the memory, each in a new process.

  Args:
    command: starts benchmark_step for one network, size and batch.
  """
  alone = {n: _in_new_process(command, n) for n in (1, 5, 7)}
  figures = {}
  for number in (1, 5):
    wall, cpu = alone[number].first_wall, alone[number].first_cpu
    print(f'first step of PGD{number}: {wall:.1f} s, {cpu:.1f} s of CPU time')
    figures[f'first_step_pgd{number}'] = wall
  peaks = {n: run.peak // 1024 for n, run in alone.items()}
  print(f'peak memory of PGD1, PGD7: {peaks[1]} MB, {peaks[7]} MB')
  ratio = alone[7].peak / alone[1].peak
  return {**figures, 'memory_pgd7_over_pgd1': ratio}


def _in_new_process(command: list[str], attack_steps: int) -> Alone:
  command = [*command, f'--alone={attack_steps}']
  output = subprocess.run(command, check=True, capture_output=True, text=True)
  return Alone(*json.loads(output.stdout.splitlines()[-1]))


def run_alone(config: config_lib.Config) -> Alone:
  """Runs 3 steps in this process, which has run none before."""
  size, batch_size = config.model.image_size, config.train.batch_size
  step = our_step(config, random_batch(size, batch_size))
  cpu_began, wall_began = time.process_time(), time.monotonic()
  step()
  first = time.process_time() - cpu_began, time.monotonic() - wall_began
  for _ in range(2):
    step()
  return Alone(_peak_memory(), *first)


def _peak_memory() -> int:
  """Returns the peak of this process in kB, of a GPU's memory if it has one."""
  if tf.config.list_physical_devices('GPU'):
    used = tf.config.experimental.get_memory_info('GPU:0')
    return int(used['peak']) // 1024
  return rounds_lib.held_memory('VmHWM')
