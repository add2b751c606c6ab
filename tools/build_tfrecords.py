r"""Writes images as TFRecords in the schema of the official ImageNet script.

An input is a folder of class folders or one of ImageNet's official tar files,
which need not be extracted. Classes are mixed. A run that
was killed resumes when it is started again.

  .venv/bin/python tools/build_tfrecords.py --output_dir=<TFRecords> \
      --input=train=ILSVRC2012_img_train.tar \
      --input=validation=ILSVRC2012_img_val.tar \
      --labels_file=imagenet_2012_validation_synset_labels.txt
  .venv/bin/python tools/build_tfrecords.py --output_dir=<TFRecords> --verify
"""

from collections.abc import Sequence
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop.app import program
from tools.tfrecords import conversion
from tools.tfrecords import verification

_FLAGS = program.flag_values(__name__)
_INPUT = flags.DEFINE_multi_string(
  'input',
  [],
  '<split>=<folder of class folders, or tar file>; once for each split.',
  flag_values=_FLAGS,
)
_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir', None, 'Folder for the TFRecords.', flag_values=_FLAGS
)
_LABELS_FILE = flags.DEFINE_string(
  'labels_file',
  None,
  'Classes of images that are in no class folder: one a line, in the order'
  ' of the sorted file names.',
  flag_values=_FLAGS,
)
_NUM_SHARDS = flags.DEFINE_multi_string(
  'num_shards',
  [],
  '<split>=<number>. Default: one for each 250 images, at most 1024 for'
  ' train and 128 for other splits.',
  flag_values=_FLAGS,
)
_SEED = flags.DEFINE_integer(
  'seed', 0, 'Decides on the order of the images.', 0, flag_values=_FLAGS
)
_NUM_WORKERS = flags.DEFINE_integer(
  'num_workers', os.cpu_count(), 'Number of processes.', 1, flag_values=_FLAGS
)
_MAX_UNREADABLE = flags.DEFINE_integer(
  'max_unreadable',
  0,
  'Number of unreadable files that may be left out.',
  0,
  flag_values=_FLAGS,
)
_VERIFY = flags.DEFINE_bool(
  'verify',
  False,
  'Read every record in --output_dir, and write nothing.',
  flag_values=_FLAGS,
)


def _check(values: flags.FlagValues) -> None:
  if not values.output_dir:
    raise flags.Error('--output_dir is needed')
  if bool(values.input) == values.verify:
    raise flags.Error('either --input or --verify is needed')
  inputs = conversion.pairs('input', values.input)
  conversion.shard_counts(inputs, values.num_shards)


def main(_: Sequence[str]) -> None:
  """Converts, or verifies if --verify asks for it."""
  output_dir, num_workers = str(_OUTPUT_DIR.value), _NUM_WORKERS.value or 1
  if _VERIFY.value:
    verification.verify(output_dir, num_workers)
    return
  inputs = conversion.pairs('input', _INPUT.value)
  conversion.convert(
    output_dir,
    inputs,
    conversion.shard_counts(inputs, _NUM_SHARDS.value),
    _LABELS_FILE.value,
    _SEED.value or 0,
    num_workers,
    _MAX_UNREADABLE.value or 0,
  )


if __name__ == '__main__':
  program.run('build_tfrecords', main, _FLAGS, _check)
