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
import json
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import program
from tools.measuring import fitting

# Imported after the package, which selects Keras 2.
import tensorflow as tf  # isort: skip

_FLAGS = program.flag_values(__name__)
_NETWORKS = flags.DEFINE_list(
  'networks',
  ['MobileNetV2', 'EfficientNetB0'],
  'Names in keras.applications.',
  flag_values=_FLAGS,
)
_DEFAULTS = fitting.Setting()
for _name, _default, _help in (
  ('image_size', _DEFAULTS.image_size, 'Size of the images, in pixels.'),
  ('batch_size', _DEFAULTS.batch_size, 'Images in a step.'),
  ('rounds', _DEFAULTS.rounds, 'Rounds, each of one turn for every variant.'),
  ('steps', _DEFAULTS.steps, 'Steps of a turn.'),
):
  flags.DEFINE_integer(_name, _default, _help, 1, flag_values=_FLAGS)
_ATTACK_STEPS = flags.DEFINE_integer(
  'attack_steps',
  None,
  'Internal: print the memory with this number of attack steps.',
  flag_values=_FLAGS,
)


def _check(values: flags.FlagValues) -> None:
  known = [
    name
    for name in dir(tf.keras.applications)
    if isinstance(getattr(tf.keras.applications, name), type(_check))
  ]
  for name in values.networks:
    config_lib.check_choice('networks', name, known)


def main(_: Sequence[str]) -> None:
  """Measures all networks, or the memory of one."""
  names = _NETWORKS.value or []
  setting = fitting.Setting(
    _FLAGS.image_size, _FLAGS.batch_size, _FLAGS.rounds, _FLAGS.steps
  )
  if _ATTACK_STEPS.value:
    print(fitting.extra_memory(setting, names[0], _ATTACK_STEPS.value))
    return
  command = [sys.executable, os.path.abspath(__file__)]
  figures = {}
  for name in names:
    found = fitting.ratios(setting, name)
    found[f'memory_{name}'] = fitting.memory_ratio(command, setting, name)
    print(f'{name}: {found}', flush=True)
    figures.update(found)
  print(json.dumps(figures))


if __name__ == '__main__':
  program.run('benchmark_fit', main, _FLAGS, _check)
