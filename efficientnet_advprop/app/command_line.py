"""The command line: `advprop` where the package is installed, else main.py.

advprop --mode=train_and_eval --model_name=efficientnet-b7
"""

from collections.abc import Sequence
import os
import re
import sys
from typing import Optional

# Silence TensorFlow's start-up messages. It reads this when it is imported.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags
from absl import logging

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import devices
from efficientnet_advprop import execution
from efficientnet_advprop.app import folder
from efficientnet_advprop.app import modes
from efficientnet_advprop.app import predicting
from efficientnet_advprop.app import program
from efficientnet_advprop.app import settings
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import paths
from efficientnet_advprop.base import quiet
from efficientnet_advprop.config import recipes
from efficientnet_advprop.training import stopping

# Imported after the package, which selects Keras 2.
import tensorflow as tf  # isort: skip

_DESCRIPTION = """Trains, evaluates, exports and uses networks with AdvProp.

  .venv/bin/python main.py --config_file=hparams/demo.yaml
  .venv/bin/python main.py --mode=eval --model_dir=<run>
  .venv/bin/python main.py --mode=export --model_dir=<run> --export_dir=<folder>
  .venv/bin/python main.py --mode=predict --model_dir=<run> --input=<pictures>

docs/settings.md lists what --params_override can change. A first word that
names a file of tools/ runs it instead: `build_tfrecords --help`."""
_MODES = ('train', 'eval', 'train_and_eval', 'export', 'predict')

FLAGS = flags.FLAGS
flags.DEFINE_string(
  'mode', 'train_and_eval', f'What to do: {", ".join(_MODES)}.'
)
flags.DEFINE_string(
  'model_name',
  None,
  f"One of {', '.join(config_lib.MODEL_NAMES)}. Default: the recipe's.",
)
flags.DEFINE_string(
  'config_file',
  None,
  'A recipe, such as hparams/cifar10/advprop.yaml. Default: the recipe of the'
  " run in model_dir, else the paper's for the model.",
)
flags.DEFINE_string(
  'params_override',
  '',
  'Changes to the recipe: train.epochs=3,attack.epsilon=2',
)
flags.DEFINE_string(
  'data_dir',
  None,
  'TFRecords, class folders, or tfds:<name>. Default: the data of the recipe,'
  ' else the embedded data set; an empty value is the embedded data set, too.',
)
flags.DEFINE_string(
  'model_dir', None, 'Folder of the run. Default: runs/<model>_<method>.'
)
flags.DEFINE_string(
  'export_dir', None, 'Folder of versions for serving. Default: in model_dir.'
)
flags.DEFINE_list(
  'input',
  None,
  'What to predict: pictures, folders, patterns (photos/*.jpg) or TFRecords.',
)
flags.DEFINE_string(
  'output',
  None,
  'Where predictions go: a .csv or .jsonl file. Default: a table is printed.',
)
flags.DEFINE_string(
  'strategy',
  'auto',
  f'Which devices to use: {", ".join(devices.STRATEGIES)}.',
)
flags.DEFINE_string('tpu', None, "`local` on a TPU VM, else a TPU's name.")
flags.DEFINE_string('tpu_zone', None, 'The zone of a TPU given by name.')
flags.DEFINE_string('gcp_project', None, 'The project of a TPU given by name.')

# What TensorFlow raises where a file cannot be written or read.
_FILE_ERRORS = (
  tf.errors.FailedPreconditionError,
  tf.errors.NotFoundError,
  tf.errors.PermissionDeniedError,
  tf.errors.ResourceExhaustedError,
)


def _run() -> int:
  config_lib.check_choice('mode', FLAGS.mode, _MODES)
  config_lib.check_choice('strategy', FLAGS.strategy, devices.STRATEGIES)
  config = settings.resolve_config(
    FLAGS.model_dir,
    FLAGS.config_file,
    FLAGS.model_name,
    FLAGS.data_dir,
    recipes.parse_overrides(FLAGS.params_override),
  )
  model_dir = FLAGS.model_dir or os.path.join(
    'runs', f'{config.model.name}_{config.train.method}'
  )
  folder.check_identity(config, model_dir)
  if FLAGS.mode == 'predict':
    inputs = FLAGS.input or ()
    found = predicting.run(config, model_dir, inputs, FLAGS.output)
    print(found.text)
    return found.exit_code
  export_dir = FLAGS.export_dir or os.path.join(model_dir, paths.EXPORT)
  if FLAGS.strategy in ('auto', 'tpu'):
    places = {'data_dir': config.data.dir or 'none', 'model_dir': model_dir}
    devices.check_reachable(FLAGS.tpu, places)
  is_deterministic = execution.set_determinism(config.train.deterministic)
  execution.prepare_gpus()
  strategy = devices.create_strategy(
    FLAGS.strategy, FLAGS.tpu, FLAGS.tpu_zone, FLAGS.gcp_project
  )
  if FLAGS.mode != 'export' and execution.choose(strategy).layers:
    quiet.hide_note_on_compilation()
  if FLAGS.mode == 'eval':
    return _show(modes.evaluate(config, strategy, model_dir))
  if FLAGS.mode == 'export':
    return _show(modes.export(config, model_dir, export_dir))
  with folder.owned(strategy, model_dir):
    note = settings.note_on_data(config)
    if note:
      logging.info('%s', note)
    if not is_deterministic:
      logging.info(
        'Without train.deterministic the same steps differ by rounding: a run'
        ' that resumes does not end with the bits of an uninterrupted one'
      )
    if FLAGS.mode == 'train':
      modes.train(config, strategy, model_dir)
      return 0
    return _show(modes.train_and_eval(config, strategy, model_dir, export_dir))


def _show(outcome: modes.Outcome) -> int:
  print(outcome.text)
  return outcome.exit_code


def _out_of_memory(error: tf.errors.OpError) -> Optional[str]:
  """Returns a line about a device that is too small; None for other errors."""
  found = re.search(
    r'OOM when allocating tensor with shape(\S+) .* on \S*device:(\w+:\d+)',
    error.message,
  )
  if not found:
    return None
  shape, device = found.groups()
  return (
    f'{device} is out of memory (a tensor of shape {shape} has no place); try a'
    ' larger train.accumulation_steps, train.rematerialize=true, or a smaller'
    ' train.batch_size or eval.batch_size'
  )


def main(argv: Sequence[str]) -> Optional[int]:
  """Runs the mode that the flags name; returns the exit code.

  Raises:
    UserError, OSError: what the user can fix; `run` shows it in one line.
  """
  del argv
  try:
    return _run()
  except _FILE_ERRORS as error:
    line = _out_of_memory(error) or errors.first_line(error)
    raise errors.UserError(line) from error
  except stopping.StoppedError as stopped:
    logging.info('%s', stopped)
    return errors.EXIT_TERMINATED


def run(name: str = 'advprop') -> None:
  """Parses the command line, runs the mode and ends the process.

  `advprop build_tfrecords ...` runs tools/build_tfrecords.py in its place.
  """
  tool = paths.tools().get(sys.argv[1]) if len(sys.argv) > 1 else None
  if tool:
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, tool, *sys.argv[2:]])
  program.run(name, main, FLAGS, description=_DESCRIPTION)
