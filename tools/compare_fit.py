r"""Trains a network of keras.applications by `fit`, with AdvProp and without.

  .venv/bin/python tools/compare_fit.py --data_dir=<cifar10> --results=fit.jsonl

Every cell starts from the same weights and sees the same batches, for each
seed. Images are resized within the network. What is measured is the top-1
accuracy of the network on the clean validation images and on corrupted ones,
the mean over the 15 corruptions of ImageNet-C at severity 3. The cells are
methods of AdvPropModel, and long_vanilla, which computes as much as AdvProp.

The file of results gets a line of JSON as each run ends. A command that was
stopped makes only the runs that are missing there. The last line holds, for
each cell, the means over the seeds and the gains over vanilla by seed.
"""

from collections.abc import Sequence
import json
import os
import re
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import program
from tools.comparing import fitting

_FLAGS = program.flag_values(__name__)
for _name, _help in (
  ('data_dir', 'Folder of TFRecords, train-* and validation-*.'),
  ('results', 'File of results, a line of JSON for each run.'),
):
  flags.DEFINE_string(_name, None, _help, required=True, flag_values=_FLAGS)
for _name, _list, _help in (
  ('seeds', '0,1,2', 'Seeds, separated by commas.'),
  ('cells', 'vanilla,advprop', f'Some of {", ".join(fitting.CELLS)}.'),
):
  flags.DEFINE_list(_name, _list, _help, flag_values=_FLAGS)
_DEFAULTS = fitting.Setting()
_NETWORKS = ('MobileNet', 'MobileNetV2', 'MobileNetV3Small')
flags.DEFINE_enum(
  'network',
  _DEFAULTS.network,
  _NETWORKS,
  'A network of keras.applications.',
  flag_values=_FLAGS,
)
flags.DEFINE_string(
  'weights',
  '',
  'HDF5 file of Keras whose layers of the same names training starts from;'
  ' empty: random weights.',
  flag_values=_FLAGS,
)
for _name, _help in (
  ('width', 'Share of the published numbers of channels.'),
  ('learning_rate', 'Of Adam, at its peak; it rises and falls to 0.'),
):
  flags.DEFINE_float(
    _name, getattr(_DEFAULTS, _name), _help, 0.0, flag_values=_FLAGS
  )
for _name, _help in (
  ('image_size', "Height and width of the network's input, in pixels."),
  ('train_images', 'Training images, the first of the split.'),
  ('eval_images', 'Validation images, the first of the split.'),
  ('epochs', 'Epochs of a run; long_vanilla has 8/3 of them.'),
  ('batch_size', 'Images in a batch.'),
):
  flags.DEFINE_integer(
    _name, getattr(_DEFAULTS, _name), _help, 1, flag_values=_FLAGS
  )


def _check(values: flags.FlagValues) -> None:
  for cell in values.cells:
    config_lib.check_choice('cells', cell, fitting.CELLS)
  for seed in values.seeds:
    if not seed.isdigit():
      raise config_lib.ConfigError('seeds', seed, 'whole numbers from 0 on')


def main(_: Sequence[str]) -> None:
  """Makes every missing run."""
  chosen = {name: getattr(_FLAGS, name) for name in fitting.Setting._fields}
  # Of paths, the last part: the folders are this machine's.
  words = [re.sub('=.*/', '=', word.rstrip('/')) for word in sys.argv[1:]]
  command = ' '.join(['tools/compare_fit.py', *words])
  lines = fitting.run_all(
    _FLAGS.cells,
    [int(seed) for seed in _FLAGS.seeds],
    _FLAGS.data_dir,
    fitting.Setting(**chosen),
    _FLAGS.results,
    command,
  )
  print(json.dumps(fitting.summary(lines)))


if __name__ == '__main__':
  program.run('compare_fit', main, _FLAGS, _check)
