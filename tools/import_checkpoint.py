r"""Imports published weights as a run of this project.

  .venv/bin/python tools/import_checkpoint.py --checkpoint=model.safetensors \
      --model_name=efficientnet-b0 --model_dir=runs/imported

The weights are of any kind that docs/weights.md lists, such as an official
checkpoint of TensorFlow 1, a Keras .h5 file, a .safetensors file of timm, a
state dict of PyTorch, or timm/<name>; the content decides which. Afterwards
`main.py --mode=eval` and `--mode=export` work on the model_dir, and training
starts from the weights.

The run's model.normalization is the one that such weights usually expect.
Official checkpoints that were trained without AdvProp need
--params_override=model.normalization=imagenet.

Only numbers are read, by their names; no code in a file is ever run. Every
variable of the network must be found, and every number in the file used.
"""

from collections.abc import Sequence
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import importing
from efficientnet_advprop.app import program
from efficientnet_advprop.config import recipes

_FLAGS = program.flag_values(__name__)
_CHECKPOINT = flags.DEFINE_string(
  'checkpoint',
  None,
  'The weights: a file, a checkpoint without suffix, or timm/<name>.',
  flag_values=_FLAGS,
)
_MODEL_NAME = flags.DEFINE_enum(
  'model_name',
  None,
  config_lib.MODEL_NAMES,
  'The network.',
  flag_values=_FLAGS,
)
_MODEL_DIR = flags.DEFINE_string(
  'model_dir', None, 'The run to create.', flag_values=_FLAGS
)
_OVERRIDES = flags.DEFINE_string(
  'params_override',
  '',
  'Changes to the recipe, such as data.num_classes=10.',
  flag_values=_FLAGS,
)


flags.mark_flags_as_required(['checkpoint', 'model_name', 'model_dir'], _FLAGS)


def main(_: Sequence[str]) -> None:
  """Runs the import."""
  importing.import_weights(
    str(_CHECKPOINT.value),
    str(_MODEL_NAME.value),
    str(_MODEL_DIR.value),
    recipes.parse_overrides(_OVERRIDES.value),
  )
  print(
    f'Imported into {_MODEL_DIR.value}. To evaluate it: .venv/bin/python'
    f' main.py --mode=eval --model_dir={_MODEL_DIR.value}'
    ' --data_dir=<imagenet>'
  )


if __name__ == '__main__':
  program.run('import_checkpoint', main, _FLAGS)
