"""One export: write the files, verify them, then make them known."""

import dataclasses
import os
from typing import Optional

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.export import sample_images
from efficientnet_advprop.export import saved_model
from efficientnet_advprop.export import tflite
from efficientnet_advprop.export import verification
from efficientnet_advprop.export import versions


@dataclasses.dataclass(frozen=True)
class Exported:
  """What an export has written.

  Attributes:
    version: the folder for TF Serving.
    tflite: the path of the TFLite file, if there is one.
    report_path: of the agreement report.
    agreement: its figures; `agreement.text()` is for the user.
  """

  version: str
  tflite: Optional[str]
  report_path: str
  agreement: verification.AgreementTable


def export(
  config: config_lib.Config, checkpoint: str, export_dir: str
) -> Exported:
  """Exports the network of a checkpoint as a new, verified version.

  The version holds the SavedModel, `labels.txt`, `agreement.json` and, if
  `export.tflite` says so, `model.tflite`. All files are compared with the
  trained network on images of `data.eval_split` before the version appears
  under its number.

  Args:
    config: of the run.
    checkpoint: as `checkpoints.restore` takes it.
    export_dir: the model's base folder on the server.

  Returns:
    Paths and figures.

  Raises:
    DataError: the images for the comparison cannot be read.
    ExportError: nothing can be written, or a file does not agree with the
      network. Nothing is left behind.
  """
  names = saved_model.checked_class_names(
    sample_images.class_names(config), config.data.num_classes
  )
  model, step = saved_model.restored_model(config, checkpoint)
  # The network as it was trained, with all its norms.
  trained, _ = saved_model.restored_model(
    config, checkpoint, config.auxiliary_domains
  )
  variant = config.export.tflite
  facts = {
    'model': config.model.name,
    'checkpoint': checkpoint,
    'step': step,
    'weights': config.eval.weights,
    'split': config.data.eval_split,
  }
  with versions.new_version(export_dir) as folder:
    saved_model.write_saved_model(model, config, names, folder)
    readers = verification.saved_model_readers(folder)
    if variant != 'none':
      readers[_tflite_name(variant)] = _write_tflite(model, config, folder)
    agreement = _compare(config, trained, readers)
    agreement.check()
    with versions.export_errors(export_dir):
      verification.write_report(folder, agreement, facts)
    version = versions.publish(folder)
  has_tflite = variant != 'none'
  return Exported(
    version=version,
    tflite=os.path.join(version, tflite.FILE_NAME) if has_tflite else None,
    report_path=os.path.join(version, verification.REPORT_FILE),
    agreement=agreement,
  )


def _write_tflite(
  model: tf.keras.Model, config: config_lib.Config, folder: str
) -> verification.Reader:
  """Writes the TFLite file and returns its reader."""
  variant = config.export.tflite
  images = (
    sample_images.calibration_images(config) if variant == 'int8' else None
  )
  content = tflite.convert(model, variant, images)
  with versions.export_errors(os.path.dirname(folder)):
    path = os.path.join(folder, tflite.FILE_NAME)
    with tf.io.gfile.GFile(path, 'wb') as file:
      file.write(content)
  return verification.tflite_reader(content)


def _compare(
  config: config_lib.Config,
  trained: tf.keras.Model,
  readers: dict[str, verification.Reader],
) -> verification.AgreementTable:
  split, variant = config.data.eval_split, config.export.tflite
  allowed_drops = {}
  if variant not in tflite.EXACT_VARIANTS:
    allowed_drops[_tflite_name(variant)] = config.export.max_accuracy_drop
  images = sample_images.evenly_spaced(
    config, split, config.export.verified_images
  )
  with sample_images.data_errors():
    return verification.compare(
      verification.network_reader(trained), readers, images, allowed_drops
    )


def _tflite_name(variant: str) -> str:
  return f'TFLite {variant}'
