"""Measures the training step against a plain Keras vanilla step.

The peer is the same network from tf.keras.applications, with the same
optimizer, batch and image size, in a plain `tf.function`. Steps of all variants
take turns; each ratio is taken within one round, because absolute rates drift
and the machine may be shared. Ratios of CPU time are the ones to go by. The
last line is JSON, every value better when smaller:

  vanilla_SIZE, pgd1_SIZE, pgd5_SIZE  CPU time over the plain Keras step's
  per_attack_step                     of a further attack step, likewise, at
                                      the first image size
  memory_pgd7_over_pgd1               of the peaks of resident memory, each
                                      in a process of its own

Without --image_size it measures 224 px at batch 16 and 64 px at batch 64.

  python tools/benchmark_step.py --quick
"""

from collections.abc import Callable, Sequence
import json
import os
import subprocess
import sys
import time

from absl import app
from absl import flags
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import models
from efficientnet_advprop.training import distribution
from efficientnet_advprop.training import optimization
from efficientnet_advprop.training import trainer

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

# Several programs share names of flags; only the one that runs defines them
# for all.
_FLAGS = flags.FLAGS if __name__ == '__main__' else flags.FlagValues()
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
_PEAK_OF = flags.DEFINE_integer(
  'peak_of',
  None,
  'print the peak memory, in kB, of PGD with so many steps',
  flag_values=_FLAGS,
)


def run_config(
  model_name: str, size: int, batch_size: int, attack_steps: int
) -> config_lib.Config:
  """A run of AdvProp with so many attack steps; of vanilla with 0."""
  values = {
    'model': {'name': model_name, 'image_size': size},
    'data': {'num_classes': _NUM_CLASSES},
    'train': {
      'method': 'advprop' if attack_steps else 'vanilla',
      'batch_size': batch_size,
    },
  }
  if attack_steps:
    epsilon = _EPSILONS[attack_steps]
    values['attack'] = {'epsilon': epsilon, 'num_steps': attack_steps}
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
  strategy = distribution.create_strategy('one_device')
  with strategy.scope():
    model, average = (
      models.create_model(
        config.model,
        _NUM_CLASSES,
        config.auxiliary_domains,
        compiled=distribution.compiles_layers(strategy),
      )
      for _ in range(2)
    )
    optimizer = optimization.create_optimizer(config, model)

  @tf.function
  def step() -> tf.Tensor:
    arguments = model, average, optimizer, batch, config
    return strategy.run(trainer.train_step, args=arguments)

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
  """Prints a table; returns the median ratios of CPU time by variant."""
  batch = random_batch(size, batch_size)
  steps = {'plain': plain_step(model_name, size, batch)}
  for name, attack_steps in (('vanilla', 0), ('pgd1', 1), ('pgd5', 5)):
    config = run_config(model_name, size, batch_size, attack_steps)
    steps[name] = our_step(config, batch)
  print(f'{model_name}, {size} px, batch {batch_size}, {rounds} rounds')
  cpu, wall = take_turns(steps, rounds)
  print(table(cpu, wall), flush=True)
  return {name: float(np.median(v)) for name, v in ratios(cpu).items()}


def peak_memory(
  model_name: str, size: int, batch_size: int, attack_steps: int
) -> int:
  """The peak of resident memory, kB, of a new process that takes 3 steps."""
  command = [sys.executable, os.path.abspath(__file__)]
  command += [f'--model_name={model_name}', f'--image_size={size}']
  command += [f'--batch_size={batch_size}', f'--peak_of={attack_steps}']
  output = subprocess.run(command, check=True, capture_output=True, text=True)
  return int(output.stdout.split()[-1])


def _print_peak(attack_steps: int) -> None:
  size, batch_size = _IMAGE_SIZE.value or 224, _BATCH_SIZE.value or 16
  config = run_config(_MODEL_NAME.value, size, batch_size, attack_steps)
  step = our_step(config, random_batch(size, batch_size))
  for _ in range(3):
    step()
  # getrusage would count what the parent held when it started this process.
  with open('/proc/self/status', encoding='ascii') as status:
    lines = dict(line.split(':', 1) for line in status)
  print(lines['VmHWM'].split()[0])


def main(argv: Sequence[str]) -> None:
  """Prints a table for each setting, and the figures as JSON."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments: {argv[1:]}')
  tf.keras.utils.set_random_seed(0)
  tf.config.experimental.enable_op_determinism()
  if _PEAK_OF.value is not None:
    _print_peak(_PEAK_OF.value)
    return
  name, rounds, settings = _MODEL_NAME.value, _STEPS.value, _SETTINGS
  if _IMAGE_SIZE.value is not None:
    settings = ((_IMAGE_SIZE.value, _BATCH_SIZE.value),)
  if _QUICK.value:
    settings, rounds = ((32, 32),), 3
  figures: dict[str, float] = {}
  for size, batch_size in settings:
    medians = measure(name, size, batch_size, rounds)
    for variant in ('vanilla', 'pgd1', 'pgd5'):
      figures[f'{variant}_{size}'] = medians[variant]
    further = (medians['pgd5'] - medians['pgd1']) / 4
    figures.setdefault('per_attack_step', further)
  if not _QUICK.value:
    peaks = [peak_memory(name, *settings[0], steps) for steps in (7, 1)]
    print('peak memory of PGD7 and PGD1, MB:', *(p // 1024 for p in peaks))
    figures['memory_pgd7_over_pgd1'] = peaks[0] / peaks[1]
  print(json.dumps({key: round(value, 3) for key, value in figures.items()}))


def _parse_flags(argv: Sequence[str]) -> list[str]:
  """Parses flags; a wrong one ends in one line."""
  try:
    return _FLAGS(argv)
  except flags.Error as error:
    print('benchmark_step:', ' '.join(str(error).split()), file=sys.stderr)
    sys.exit(2)


if __name__ == '__main__':
  app.run(main, flags_parser=_parse_flags)
