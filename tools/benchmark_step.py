"""Measures the training step against a plain Keras vanilla step.

The peer is the same network from tf.keras.applications, with the same
optimizer, batch and image size, in a plain `tf.function`. Steps of all variants
take turns, and each ratio is taken within one round, because absolute rates
drift and the machine may be shared. On a CPU, compare by the ratios of CPU
time; on a GPU, all ratios are of wall time. The first line names the device.
The last line is JSON, in which smaller values are better:

  vanilla_SIZE, pgd1_SIZE, pgd5_SIZE  CPU time / CPU time of plain Keras
  fast_SIZE                           the same for Fast AdvProp, for each image
                                      of the whole batch
  per_attack_step                     the same for one more attack step, at the
                                      first image size
  evaluation_SIZE                     CPU time of an evaluation step / that of
                                      the bare network on the same images
  first_step_pgd1, first_step_pgd5    seconds of tracing, compiling and running,
                                      in a new process, at the first image size
  memory_pgd7_over_pgd1               ratio of the peaks of memory, resident or
                                      of the GPU, in new processes, at the first
                                      image size

Without --image_size it measures 224 px at batch 16 and 64 px at batch 64.

  .venv/bin/python tools/benchmark_step.py --quick
"""

from collections.abc import Sequence
import json
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop.app import program
from tools.measuring import steps as steps_lib

_SETTINGS = ((224, 16), (64, 64))  # Image and batch sizes.

_FLAGS = program.flag_values(__name__)
_MODEL_NAME = flags.DEFINE_enum(
  'model_name',
  'efficientnet-b0',
  # Keras has no larger ones.
  [f'efficientnet-b{number}' for number in range(8)],
  'The network.',
  flag_values=_FLAGS,
)
_IMAGE_SIZE = flags.DEFINE_integer(
  'image_size', None, 'Size of the images, in pixels.', 32, flag_values=_FLAGS
)
_BATCH_SIZE = flags.DEFINE_integer(
  'batch_size',
  16,
  'Images in a step, with --image_size.',
  1,
  flag_values=_FLAGS,
)
_STEPS = flags.DEFINE_integer(
  'steps',
  9,
  'Rounds, each with one step of each variant.',
  1,
  flag_values=_FLAGS,
)
_QUICK = flags.DEFINE_bool(
  'quick',
  False,
  'Measure 3 rounds of 32 px and batch 32, and no memory.',
  flag_values=_FLAGS,
)
_ALONE = flags.DEFINE_integer(
  'alone',
  None,
  'Internal: run 3 steps with this number of attack steps.',
  flag_values=_FLAGS,
)


def main(_: Sequence[str]) -> None:
  """Prints a table for each setting, and the figures as JSON."""
  steps_lib.prepare()
  name, rounds = str(_MODEL_NAME.value), _STEPS.value or 1
  settings: Sequence[tuple[int, int]] = _SETTINGS
  if _IMAGE_SIZE.value is not None:
    settings = ((_IMAGE_SIZE.value, _BATCH_SIZE.value or 1),)
  if _ALONE.value is not None:
    config = steps_lib.run_config(name, *settings[0], _ALONE.value)
    print(json.dumps(steps_lib.run_alone(config)))
    return
  if _QUICK.value:
    settings, rounds = ((32, 32),), 3
  figures = steps_lib.measure_settings(name, settings, rounds)
  if not _QUICK.value:
    command = [sys.executable, os.path.abspath(__file__)]
    command += [f'--model_name={name}', f'--image_size={settings[0][0]}']
    command += [f'--batch_size={settings[0][1]}']
    figures.update(steps_lib.measure_alone(command))
  print(json.dumps({key: round(value, 3) for key, value in figures.items()}))


if __name__ == '__main__':
  program.run('benchmark_step', main, _FLAGS)
