r"""Measures how much memory a training step takes, and what makes it less.

  .venv/bin/python tools/benchmark_memory.py --model_name=efficientnet-b0 \
      --image_size=224 --batch_size=16

Each variant takes two steps of AdvProp in a process of its own. What counts is
the peak of resident memory above what the process held with the network built
and no step taken; TensorFlow itself and the variables are not in it. The last
line is JSON, in MB:

  pgd1, pgd5      by the number of attack steps
  accumulated     PGD1, in `--parts` parts one after another
  rematerialized  PGD1, blocks computed again backward
  both            PGD1, all of these
"""

from collections.abc import Sequence
import json
import os
import subprocess
import sys
import time

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import app
from absl import flags

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import program
from tools import benchmark_step

FLAGS = program.flag_values(__name__)
for _name, _default, _help in (
  ('model_name', 'efficientnet-b0', 'The network.'),
  ('variants', '', 'Those to measure, with commas; empty for all.'),
  ('variant', None, 'Used between the processes.'),
):
  flags.DEFINE_string(_name, _default, _help, flag_values=FLAGS)
for _name, _number, _help in (
  ('image_size', 224, 'In pixels.'),
  ('batch_size', 16, 'Images in a step.'),
  ('parts', 4, 'Into which accumulation cuts a batch.'),
):
  flags.DEFINE_integer(_name, _number, _help, 1, flag_values=FLAGS)

_NUM_CLASSES = 1000
# Attack steps, whether in parts, whether rematerialized.
VARIANTS = {
  'pgd1': (1, False, False),
  'pgd5': (5, False, False),
  'accumulated': (1, True, False),
  'rematerialized': (1, False, True),
  'both': (1, True, True),
}


def run_config(variant: str) -> config_lib.Config:
  """The run of a variant."""
  attack_steps, in_parts, rematerialize = VARIANTS[variant]
  return config_lib.from_dict(
    {
      'model': {'name': FLAGS.model_name, 'image_size': FLAGS.image_size},
      'attack': {'epsilon': 4, 'num_steps': attack_steps},
      'data': {'num_classes': _NUM_CLASSES, 'num_train_images': 1_281_167},
      'train': {
        'batch_size': FLAGS.batch_size,
        'accumulation_steps': FLAGS.parts if in_parts else 1,
        'rematerialize': rematerialize,
      },
    }
  )


def extra_memory(config: config_lib.Config) -> tuple[int, list[float]]:
  """What two steps take above the network, in kB, and the seconds of each."""
  batch = benchmark_step.random_batch(
    config.model.image_size, config.train.batch_size
  )
  step = benchmark_step.our_step(config, batch)
  before = benchmark_step.held_memory('VmRSS')
  seconds = []
  for _ in range(2):
    began = time.monotonic()
    step()
    seconds.append(round(time.monotonic() - began, 1))
  return benchmark_step.held_memory('VmHWM') - before, seconds


def _measure(variant: str) -> tuple[int, list[float]]:
  """MB and seconds of a variant, from a new process."""
  names = 'model_name', 'image_size', 'batch_size', 'parts'
  command = [sys.executable, __file__, f'--variant={variant}']
  command += [f'--{name}={getattr(FLAGS, name)}' for name in names]
  done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
  kilobytes, seconds = json.loads(done.stdout.splitlines()[-1])
  return round(kilobytes / 1024), seconds


def _chosen(values: flags.FlagValues) -> list[str]:
  """The variants to measure."""
  return values.variants.split(',') if values.variants else list(VARIANTS)


def _check(values: flags.FlagValues) -> None:
  for variant in _chosen(values):
    config_lib.check_choice('variants', variant, VARIANTS)
  config_lib.model_config(values.model_name, {})


def main(_: Sequence[str]) -> None:
  """Measures all variants, or one."""
  if FLAGS.variant:
    print(json.dumps(extra_memory(run_config(FLAGS.variant))))
    return
  figures = {}
  for variant in _chosen(FLAGS):
    figures[variant], (first, second) = _measure(variant)
    print(
      f'{variant}: {figures[variant]} MB, steps of {first} and {second} s',
      flush=True,
    )
  settings = FLAGS.model_name, f'{FLAGS.image_size} px', FLAGS.batch_size
  print('network, size, batch:', *settings)
  print(json.dumps(figures))


if __name__ == '__main__':
  app.run(main, flags_parser=program.parser('benchmark_memory', FLAGS, _check))
