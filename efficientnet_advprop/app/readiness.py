"""Checks before the first step what a run will need at its end.

Training takes hours or days. What is missing then is often missing now, too.
`Session.check_tests` checks the images of tests in the same way.
"""

import os
import shutil

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import paths
from efficientnet_advprop.data import sources
from efficientnet_advprop.export import onnx_files
from efficientnet_advprop.export import saved_model
from efficientnet_advprop.export import versions
from efficientnet_advprop.training import trainer as trainer_lib
from efficientnet_advprop.weights import checkpoints


def check_export(config: config_lib.Config, export_dir: str) -> None:
  """Checks that a version can be written, with all files that are asked for.

  Raises:
    ExportError: the folder cannot be written, a package is missing, or the
      names of the classes do not fit.
  """
  if config.export.onnx:
    onnx_files.check_packages()
  names = sources.label_names(config.data)
  saved_model.checked_class_names(names, config.data.num_classes)
  is_new = not tf.io.gfile.exists(export_dir)
  with versions.new_version(export_dir):
    pass
  if is_new:
    tf.io.gfile.rmtree(export_dir)


def check_space(trainer: trainer_lib.Trainer) -> None:
  """Checks that the next checkpoint fits on a local disk.

  A warning says if this one fits, but not all that the run will keep.

  Raises:
    CheckpointError: it does not; one line says how much is free and needed.
  """
  model_dir = trainer.model_dir
  if '://' in model_dir or not os.path.isdir(model_dir):
    return
  variables = [
    *trainer.model.variables,
    *trainer.average.variables,
    *trainer.optimizer.variables,
  ]
  needed = sum(v.shape.num_elements() * v.dtype.size for v in variables)
  free = shutil.disk_usage(model_dir).free
  if free < needed:
    raise errors.CheckpointError(
      f'{model_dir}: {free / 2**20:.1f} MiB are free; a checkpoint needs'
      f' {needed / 2**20:.1f} MiB'
    )
  folder = os.path.join(model_dir, paths.CHECKPOINTS)
  kept = trainer.config.train.keep_checkpoints
  # The oldest one goes only when the newest is whole.
  missing = kept + 1 - len(checkpoints.checkpoint_paths(folder))
  if free < missing * needed:
    logging.warning(
      '%s: %.1f MiB are free; the %d checkpoints that train.keep_checkpoints'
      ' keeps, and a new one, need %.1f MiB more',
      model_dir,
      free / 2**20,
      kept,
      missing * needed / 2**20,
    )
