r"""Trains a network of keras.applications by `fit`, with AdvProp and without.

  .venv/bin/python tools/compare_fit.py --data_dir=<TFRecords> --epochs=10

Every method starts from the same weights and sees the same batches, for each
seed. Images are resized within the network. What is measured is the top-1
accuracy of the network on the clean validation images and on corrupted ones,
the mean of five corruptions at severity 3. A line of JSON follows each run; the
last line holds, for each method, the means over the seeds, and AdvProp's gain
over vanilla training of each seed.
"""

from collections.abc import Sequence
import json
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop.app import program
from tools.comparing import fitting

_FLAGS = program.flag_values(__name__)
_DATA_DIR = flags.DEFINE_string(
  'data_dir',
  None,
  'Folder of TFRecords, train-* and validation-*.',
  required=True,
  flag_values=_FLAGS,
)
for _name, _list, _help in (
  ('seeds', '0,1,2', 'Seeds, separated by commas.'),
  ('methods', 'vanilla,advprop', 'Methods of AdvPropModel.'),
):
  flags.DEFINE_list(_name, _list, _help, flag_values=_FLAGS)
for _name, _number, _help in (
  ('epochs', 10, 'Epochs of a run.'),
  ('train_images', 5000, 'Training images, the first of the split.'),
  ('eval_images', 1000, 'Validation images, the first of the split.'),
  ('image_size', 64, "Height and width of the network's input, in pixels."),
):
  flags.DEFINE_integer(_name, _number, _help, 1, flag_values=_FLAGS)


def main(_: Sequence[str]) -> None:
  """Runs every method with every seed."""
  data = fitting.load_all(
    str(_DATA_DIR.value), _FLAGS.train_images, _FLAGS.eval_images
  )
  results = []
  for seed in map(int, _FLAGS.seeds):
    for method in _FLAGS.methods:
      results.append(
        fitting.run(method, seed, data, _FLAGS.epochs, _FLAGS.image_size)
      )
      print(json.dumps(results[-1]), flush=True)
  print(json.dumps(fitting.summary(results)))


if __name__ == '__main__':
  program.run('compare_fit', main, _FLAGS)
