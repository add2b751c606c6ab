r"""Measures how much memory a training step takes, and what reduces it.

  .venv/bin/python tools/benchmark_memory.py --model_name=efficientnet-b0 \
      --image_size=224 --batch_size=16

Each variant runs two steps of AdvProp in a new process. The figure is the peak
of resident memory above what the process held when the network was built and no
step had run; it leaves out TensorFlow itself and the variables. The last line
is JSON, in MB:

  pgd1, pgd5      by the number of attack steps
  accumulated     PGD1, in `--parts` parts one after another
  rematerialized  PGD1, with blocks recomputed in the backward pass
  both            PGD1, with both of these
"""

from collections.abc import Sequence
import json
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import program
from tools.measuring import memory

_FLAGS = program.flag_values(__name__)
_MODEL_NAME = flags.DEFINE_string(
  'model_name', 'efficientnet-b0', 'The network.', flag_values=_FLAGS
)
_IMAGE_SIZE = flags.DEFINE_integer(
  'image_size', 224, 'Size of the images, in pixels.', 1, flag_values=_FLAGS
)
_BATCH_SIZE = flags.DEFINE_integer(
  'batch_size', 16, 'Images in a step.', 1, flag_values=_FLAGS
)
_PARTS = flags.DEFINE_integer(
  'parts',
  4,
  'Parts into which accumulation divides a batch.',
  1,
  flag_values=_FLAGS,
)
_VARIANTS = flags.DEFINE_list(
  'variants', list(memory.VARIANTS), 'What to measure.', flag_values=_FLAGS
)
_VARIANT = flags.DEFINE_string(
  'variant', None, 'Internal: run this variant here.', flag_values=_FLAGS
)


def _check(values: flags.FlagValues) -> None:
  for variant in values.variants:
    config_lib.check_choice('variants', variant, memory.VARIANTS)
  config_lib.model_config(values.model_name, {})


def main(_: Sequence[str]) -> None:
  """Measures all variants, or one."""
  setting = memory.Setting(
    str(_MODEL_NAME.value),
    _IMAGE_SIZE.value or 1,
    _BATCH_SIZE.value or 1,
    _PARTS.value or 1,
  )
  if _VARIANT.value:
    config = memory.run_config(setting, _VARIANT.value)
    print(json.dumps(memory.extra_memory(config)))
    return
  command = [sys.executable, os.path.abspath(__file__)]
  figures = {}
  for name in _VARIANTS.value or []:
    megabytes, (first, second) = memory.measure(command, setting, name)
    print(
      f'{name}: {megabytes} MB, steps of {first} and {second} s', flush=True
    )
    figures[name] = megabytes
  print(
    f'network {setting.model_name}, {setting.image_size} px, batch'
    f' {setting.batch_size}'
  )
  print(json.dumps(figures))


if __name__ == '__main__':
  program.run('benchmark_memory', main, _FLAGS, _check)
