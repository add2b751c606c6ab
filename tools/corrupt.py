"""Writes a test set in the 15 corruptions and 5 severities of ImageNet-C.

  python tools/corrupt.py --config_file=hparams/demo.yaml --output_dir=demo-c

corrupts the split data.eval_split, cropped and resized as the network sees it,
into TFRecords; `eval.tests.<name>.kind=corruptions` evaluates them. A run that
was stopped goes on where it was. docs/robustness.md shows more.
"""

from collections.abc import Sequence
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import app
from absl import flags
from absl import logging

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import modes
from efficientnet_advprop import recipes
from efficientnet_advprop.evaluation import corruptions
from tools import flag_parser


def main(_: Sequence[str]) -> int:
  """Reads the flags, writes the set; returns the exit code."""
  f = flags.FLAGS
  logging.set_verbosity(logging.INFO)
  try:
    config = modes.resolve_config(
      f.model_dir,
      f.config_file,
      None,
      f.data_dir,
      recipes.parse_overrides(f.params_override),
    )
    corruptions.write_corrupted(
      config,
      f.output_dir,
      f.seed,
      f.num_images,
      f.num_workers,
      lambda done, total: logging.info(
        '%d of %d corruptions written', done, total
      ),
    )
  except modes.USER_ERRORS as error:
    print(f'corrupt: {error}', file=sys.stderr)
    return 2
  except OSError as error:
    where = error.filename or 'file system'
    print(f'corrupt: {where}: {error.strerror}', file=sys.stderr)
    return 2
  print(f.output_dir)
  return 0


if __name__ == '__main__':
  flags.DEFINE_string('output_dir', None, 'Where the corrupted set goes.')
  flags.DEFINE_string('config_file', None, 'As in main.py.')
  flags.DEFINE_string('model_dir', None, 'As in main.py.')
  flags.DEFINE_string('data_dir', None, 'As in main.py.')
  flags.DEFINE_string(
    'params_override', '', 'As in main.py; model.image_size sets the size.'
  )
  flags.DEFINE_integer('num_images', None, 'Evenly spread. Default: all.', 1)
  flags.DEFINE_integer('num_workers', os.cpu_count(), 'Processes at work.', 1)
  flags.DEFINE_integer('seed', 0, 'Of everything random.', 0)
  flags.mark_flag_as_required('output_dir')
  app.run(main, flags_parser=flag_parser.parser('corrupt', flags.FLAGS))
