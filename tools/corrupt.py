r"""Writes a test set in the 15 corruptions and 5 severities of ImageNet-C.

  .venv/bin/python tools/corrupt.py \
      --config_file=hparams/demo.yaml --output_dir=runs/demo-c

It writes the split data.eval_split, cropped and resized as the network sees it,
as TFRecords; `eval.tests.<name>.kind=corruptions` evaluates them. A run that
was stopped resumes. docs/robustness.md shows more.
"""

from collections.abc import Sequence
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags
from absl import logging

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop.app import program
from efficientnet_advprop.app import settings
from efficientnet_advprop.config import recipes
from efficientnet_advprop.evaluation import corrupted_sets

_FLAGS = program.flag_values(__name__)
_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir', None, 'Folder for the corrupted set.', flag_values=_FLAGS
)
_CONFIG_FILE = flags.DEFINE_string(
  'config_file', None, 'As in main.py.', flag_values=_FLAGS
)
_MODEL_DIR = flags.DEFINE_string(
  'model_dir', None, 'As in main.py.', flag_values=_FLAGS
)
_DATA_DIR = flags.DEFINE_string(
  'data_dir', None, 'As in main.py.', flag_values=_FLAGS
)
_OVERRIDES = flags.DEFINE_string(
  'params_override',
  '',
  'As in main.py; model.image_size sets the size.',
  flag_values=_FLAGS,
)
_NUM_IMAGES = flags.DEFINE_integer(
  'num_images',
  None,
  'Images to take, evenly spaced. Default: all.',
  1,
  flag_values=_FLAGS,
)
_STRENGTHS = flags.DEFINE_string(
  'strengths',
  None,
  'Whose strengths: cifar_c, imagenet_c, or imagecorruptions for those of the'
  ' package. Default: cifar_c up to 63 pixels, imagenet_c above.',
  flag_values=_FLAGS,
)
_NUM_WORKERS = flags.DEFINE_integer(
  'num_workers', os.cpu_count(), 'Number of processes.', 1, flag_values=_FLAGS
)
_SEED = flags.DEFINE_integer(
  'seed', 0, 'Decides on everything random.', 0, flag_values=_FLAGS
)
flags.mark_flag_as_required('output_dir', _FLAGS)


def _log(done: int, total: int) -> None:
  logging.info('%d of %d corruptions written', done, total)


def main(_: Sequence[str]) -> None:
  """Writes the set, and prints its folder."""
  config = settings.resolve_config(
    _MODEL_DIR.value,
    _CONFIG_FILE.value,
    None,
    _DATA_DIR.value,
    recipes.parse_overrides(_OVERRIDES.value),
  )
  corrupted_sets.write(
    config,
    str(_OUTPUT_DIR.value),
    _SEED.value or 0,
    _NUM_IMAGES.value,
    _NUM_WORKERS.value or 1,
    _STRENGTHS.value,
    _log,
  )
  print(_OUTPUT_DIR.value)


if __name__ == '__main__':
  program.run('corrupt', main, _FLAGS)
