"""Trains, evaluates and exports EfficientNets with AdvProp.

  .venv/bin/python main.py --mode=train_and_eval --model_name=efficientnet-b7

README.md shows more.
"""

from collections.abc import Sequence
import os
import sys

# TensorFlow's own start-up notes would bury what a user wants to read.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import app
from absl import flags
from absl import logging

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import devices
from efficientnet_advprop.app import modes
from efficientnet_advprop.base import errors
from efficientnet_advprop.config import recipes
from efficientnet_advprop.training import trainer

# Behind the package, which chooses the Keras that TensorFlow brings.
import tensorflow as tf  # isort: skip

_MODES = ('train', 'eval', 'train_and_eval', 'export')
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
  'TFRecords, class folders, or tfds:<name>. Default: the embedded data set.',
)
flags.DEFINE_string(
  'model_dir', None, 'Where the run lies. Default: runs/<model>_<method>.'
)
flags.DEFINE_string(
  'export_dir', None, 'Where versions for serving go. Default: in model_dir.'
)
flags.DEFINE_string(
  'strategy',
  'auto',
  f'Which devices to use: {", ".join(devices.STRATEGIES)}.',
)
flags.DEFINE_string('tpu', None, "`local` on a TPU VM, else a TPU's name.")
flags.DEFINE_string('tpu_zone', None, 'The zone of a TPU given by name.')
flags.DEFINE_string('gcp_project', None, 'The project of a TPU given by name.')
FLAGS = flags.FLAGS

# What TensorFlow raises where a file cannot be written or read.
_FILE_ERRORS = (
  tf.errors.FailedPreconditionError,
  tf.errors.NotFoundError,
  tf.errors.PermissionDeniedError,
  tf.errors.ResourceExhaustedError,
)


def _run() -> None:
  config_lib.check_choice('mode', FLAGS.mode, _MODES)
  config_lib.check_choice('strategy', FLAGS.strategy, devices.STRATEGIES)
  config = modes.resolve_config(
    FLAGS.model_dir,
    FLAGS.config_file,
    FLAGS.model_name,
    FLAGS.data_dir,
    recipes.parse_overrides(FLAGS.params_override),
  )
  model_dir = FLAGS.model_dir or os.path.join(
    'runs', f'{config.model.name}_{config.train.method}'
  )
  modes.check_model_dir(config, model_dir)
  export_dir = FLAGS.export_dir or os.path.join(model_dir, 'export')
  if FLAGS.strategy in ('auto', 'tpu'):
    places = {'data_dir': config.data.dir or 'none', 'model_dir': model_dir}
    devices.check_reachable(FLAGS.tpu, places)
  # A run is a function of its config and seed alone.
  tf.config.experimental.enable_op_determinism()
  strategy = devices.create_strategy(
    FLAGS.strategy, FLAGS.tpu, FLAGS.tpu_zone, FLAGS.gcp_project
  )
  if FLAGS.mode == 'train':
    modes.train(config, strategy, model_dir)
  elif FLAGS.mode == 'eval':
    print(modes.evaluate(config, strategy, model_dir))
  elif FLAGS.mode == 'train_and_eval':
    print(modes.train_and_eval(config, strategy, model_dir, export_dir))
  else:
    print(modes.export(config, model_dir, export_dir))


def _fail(message: object) -> int:
  print(f'main.py: {message}', file=sys.stderr)
  return errors.EXIT_USER_ERROR


def main(argv: Sequence[str]) -> int:
  """Runs the mode that the flags name; returns the exit code."""
  if len(argv) > 1:
    return _fail(f'{argv[1]}: got an argument; allowed: flags alone')
  logging.set_verbosity(logging.INFO)
  try:
    _run()
  except errors.UserError as error:
    return _fail(error)
  except OSError as error:
    return _fail(f'{error.filename or "file system"}: {error.strerror}')
  except _FILE_ERRORS as error:
    return _fail((error.message or type(error).__name__).splitlines()[0])
  except trainer.StoppedError as stopped:
    logging.info('%s', stopped)
    return errors.EXIT_TERMINATED
  return 0


def _parse_flags(argv: Sequence[str]) -> list[str]:
  """Parses flags; a wrong one ends in one line instead of a usage page."""
  try:
    return FLAGS(argv)
  except flags.Error as error:
    sys.exit(_fail(' '.join(str(error).split())))


if __name__ == '__main__':
  app.run(main, flags_parser=_parse_flags)
