r"""Shows whether Fast AdvProp's attack gives labels away to small norm groups.

  .venv/bin/python tools/measure_label_leak.py --data_dir=<cifar10> \
      --params_override=train.norm_groups=4,train.epochs=2

It trains the recipe twice for each seed: with adversarial images dealt over the
norm groups, as the method does, and with images that stay in the groups in
which they were attacked. It prints the training accuracies of the passes in
each quarter of the run. A network that reads the labels from batch statistics
is better on adversarial images without dealing. The last line is JSON.
"""

from collections.abc import Sequence
import dataclasses
import functools
import json
import os
import platform
import sys
import time

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop.app import program
from efficientnet_advprop.app import settings
from efficientnet_advprop.config import recipes
from tools.measuring import label_leak

# Imported after the package, which selects Keras 2.
import tensorflow as tf  # isort: skip

_PARTS = 4  # Of a run, each of which has a line.

_FLAGS = program.flag_values(__name__)
_CONFIG_FILE = flags.DEFINE_string(
  'config_file',
  'hparams/cifar10/fast_advprop.yaml',
  'A recipe of fast_advprop.',
  flag_values=_FLAGS,
)
_PARAMS_OVERRIDE = flags.DEFINE_string(
  'params_override',
  'train.norm_groups=4',
  'Changes to the recipe.',
  flag_values=_FLAGS,
)
_DATA_DIR = flags.DEFINE_string(
  'data_dir', None, 'The images, as main.py takes them.', flag_values=_FLAGS
)
_SEEDS = flags.DEFINE_integer(
  'seeds', 2, 'Number of seeds, from 0 on.', 1, flag_values=_FLAGS
)


def _report(name: str, step: int, found: label_leak.Accuracies) -> None:
  """Prints a line of the table."""
  print(
    f'{name:24}{step:7}{found.clean:8.1f}{found.noise:8.1f}'
    f'{found.adversarial:13.1f}',
    flush=True,
  )


def main(_: Sequence[str]) -> None:
  """Trains both variants with every seed, and prints their accuracies."""
  config = settings.resolve_config(
    None,
    _CONFIG_FILE.value,
    None,
    _DATA_DIR.value,
    recipes.parse_overrides(_PARAMS_OVERRIDE.value or ''),
  )
  figures = {}
  print(f'{"":24}{"steps":>7}{"clean":>8}{"noise":>8}{"adversarial":>13}')
  for seed in range(_SEEDS.value or 1):
    train = dataclasses.replace(config.train, seed=seed)
    for deals in (True, False):
      run = dataclasses.replace(config, train=train)
      name = f'{"dealt" if deals else "not dealt"}, seed {seed}'
      report = functools.partial(_report, name)
      figures[name] = label_leak.measure(run, deals, _PARTS, report)
  print(
    f'groups {config.train.norm_groups}, batch {config.train.batch_size},'
    f' attack epsilon {config.attack.epsilon:g}, TensorFlow {tf.__version__},'
    f' Python {platform.python_version()}, {time.strftime("%Y-%m-%d")}'
  )
  print(json.dumps(figures))


if __name__ == '__main__':
  program.run('measure_label_leak', main, _FLAGS)
