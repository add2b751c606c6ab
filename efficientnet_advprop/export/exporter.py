"""One export: write the files, verify them, then make them known."""

import dataclasses
import os

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import files
from efficientnet_advprop.data import bad_records
from efficientnet_advprop.data import sources
from efficientnet_advprop.export import onnx_files
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
    files: the paths of the TFLite and ONNX files by their titles, such as
      `TFLite float16`.
    report_path: of the agreement report.
    agreement: its figures; `agreement.text()` is for the user.
  """

  version: str
  files: dict[str, str]
  report_path: str
  agreement: verification.AgreementTable


def export(
  config: config_lib.Config, checkpoint: str, export_dir: str
) -> Exported:
  """Exports the network of a checkpoint as a new, verified version.

  The version holds the SavedModel, `labels.txt`, `agreement.json` and the files
  that `export.tflite` and `export.onnx` ask for. All files are compared with
  the trained network on images of `data.eval_split` before the version appears
  under its number.

  Args:
    config: of the run.
    checkpoint: as `loading.restore` takes it.
    export_dir: the model's base folder on the server.

  Returns:
    Paths and figures.

  Raises:
    DataError: the images for the comparison cannot be read.
    ExportError: nothing can be written, a package is missing, or a file does
      not agree with the network. Nothing is left behind.
  """
  if config.export.onnx:
    onnx_files.check_packages()
  names = saved_model.checked_class_names(
    sources.label_names(config.data), config.data.num_classes
  )
  model, step = saved_model.restored_model(config, checkpoint)
  # The network as it was trained, with all its norms.
  trained, _ = saved_model.restored_model(
    config, checkpoint, config.auxiliary_domains
  )
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
    written = _write_files(model, config, folder, readers)
    agreement = _compare(config, trained, readers)
    agreement.check()
    with versions.export_errors(export_dir):
      verification.write_report(folder, agreement, facts)
    version = versions.publish(folder)
  return Exported(
    version=version,
    files={name: os.path.join(version, file) for name, file in written.items()},
    report_path=os.path.join(version, verification.REPORT_FILE),
    agreement=agreement,
  )


def _write_files(
  model: tf.keras.Model,
  config: config_lib.Config,
  folder: str,
  readers: dict[str, verification.Reader],
) -> dict[str, str]:
  """Writes TFLite and ONNX files and adds their readers.

  Returns:
    The names of the files by their titles.
  """
  variants = config.export.tflite
  written = {}
  for variant in variants:
    images = None
    if variant == 'int8':
      images = sample_images.calibration_images(config)
    content = tflite.convert(model, variant, images)
    name = tflite.file_name(variant, variants)
    _write(folder, name, content)
    written[_tflite_title(variant)] = name
    readers[_tflite_title(variant)] = verification.tflite_reader(content)
  if config.export.onnx:
    content = onnx_files.convert(model)
    _write(folder, onnx_files.FILE_NAME, content)
    written['ONNX'] = onnx_files.FILE_NAME
    readers['ONNX'] = verification.onnx_reader(content)
  return written


def _write(folder: str, name: str, content: bytes) -> None:
  with versions.export_errors(os.path.dirname(folder)):
    files.write(os.path.join(folder, name), content)


def _compare(
  config: config_lib.Config,
  trained: tf.keras.Model,
  readers: dict[str, verification.Reader],
) -> verification.AgreementTable:
  allowed_drops = {
    _tflite_title(variant): config.export.max_accuracy_drop
    for variant in config.export.tflite
    if variant not in tflite.EXACT_VARIANTS
  }
  images = sample_images.evenly_spaced(
    config, config.data.eval_split, config.export.verified_images
  )
  with bad_records.data_errors():
    return verification.compare(
      verification.network_reader(trained), readers, images, allowed_drops
    )


def _tflite_title(variant: str) -> str:
  return f'TFLite {variant}'
