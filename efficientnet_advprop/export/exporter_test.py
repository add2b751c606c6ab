import dataclasses
import json
import os
import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import export as export_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.export import exported_network
from efficientnet_advprop.export import sample_images
from efficientnet_advprop.export import saved_model
from efficientnet_advprop.export import tflite
from efficientnet_advprop.models import factory
from efficientnet_advprop.testing import tiny_network
from efficientnet_advprop.testing import tiny_runs


def _with(config, **export):
  section = dataclasses.replace(config.export, **export)
  return dataclasses.replace(config, export=section)


@pytest.fixture(scope='module')
def exported(config, model_dir, tmp_path_factory):
  directory = os.fspath(tmp_path_factory.mktemp('exported'))
  settings = _with(config, tflite=('float16',), verified_images=6)
  return export_lib.export(settings, model_dir, directory)


def test_version_holds_verified_files(exported, model_dir):
  names = set(os.listdir(exported.version))
  assert {
    'saved_model.pb', 'labels.txt', 'model.tflite', 'agreement.json'
  } <= names  # fmt: skip
  labels = pathlib.Path(exported.version, 'labels.txt').read_text()
  assert labels.splitlines() == tiny_network.CLASS_NAMES
  report = json.loads(pathlib.Path(exported.report_path).read_text())
  assert report['num_images'] == 6
  assert report['step'] == tiny_network.STEP
  assert report['checkpoint'] == model_dir
  assert [row['reader'] for row in report['readers']] == [
    'SavedModel serving_default',
    'SavedModel encoded_images',
    'TFLite float16',
  ]
  for row in report['readers'][:2]:
    assert row['max_difference'] <= 1e-5
    assert row['equal_top_1'] == 1
  assert 'TFLite float16' in exported.agreement.text()


def test_a_resnet_agrees(config, tmp_path):
  model = {
    **tiny_runs.RESNET,
    'image_size': tiny_network.SIZE,
    'normalization': 'imagenet',
  }
  settings = _with(
    dataclasses.replace(config, model=config_lib.ModelConfig(**model)),
    tflite=('float32',),
  )
  network = factory.create_model(settings.model, 3, ('adversarial',))
  tiny_network.fit(network, sample_images.evenly_spaced(config, 'train', 30))
  step = tf.train.Checkpoint(_iterations=tf.Variable(1, dtype=tf.int64))
  tf.train.Checkpoint(ema=network, optimizer=step).write(
    os.fspath(tmp_path / 'checkpoints' / 'ckpt-1')
  )
  exported = export_lib.export(
    settings, os.fspath(tmp_path), os.fspath(tmp_path / 'export')
  )
  assert exported.agreement.top_1_accuracy > 0.5
  assert len(exported.agreement.readers) == 3
  for row in exported.agreement.readers:
    assert row.max_difference <= 1e-5
    assert row.equal_top_1 == 1


def test_a_bad_file_prevents_the_version(
  config, model_dir, tmp_path, monkeypatch
):
  def convert(model, variant, calibration=None):
    model.classifier.bias.assign_add([50.0, 0.0, 0.0])
    return real_convert(model, variant, calibration)

  real_convert = tflite.convert
  monkeypatch.setattr(tflite, 'convert', convert)
  settings = _with(config, tflite=('dynamic',), max_accuracy_drop=10)
  with pytest.raises(errors.ExportError, match='TFLite dynamic loses'):
    export_lib.export(settings, model_dir, os.fspath(tmp_path))
  assert not list(tmp_path.iterdir())


def test_int8_is_calibrated_and_measured(config, model_dir, tmp_path):
  settings = _with(
    config,
    tflite=('int8', 'float32'),
    max_accuracy_drop=100,
    calibration_images=6,
  )
  exported = export_lib.export(settings, model_dir, os.fspath(tmp_path))
  int8, float32 = exported.agreement.readers[-2:]
  assert int8.reader == 'TFLite int8'
  assert int8.allowed_drop == 100
  assert 0 < int8.max_difference < 1
  # A version with several files names each after its variant.
  assert float32.reader == 'TFLite float32' and float32.max_difference < 1e-5
  assert {name: os.path.basename(p) for name, p in exported.files.items()} == {
    'TFLite int8': 'model-int8.tflite',
    'TFLite float32': 'model-float32.tflite',
  }
  assert all(os.path.exists(path) for path in exported.files.values())


def test_onnx_is_verified(config, model_dir, tmp_path):
  pytest.importorskip('tf2onnx', reason='an extra')
  pytest.importorskip('onnxruntime', reason='an extra')
  settings = _with(config, onnx=True, verified_images=6)
  exported = export_lib.export(settings, model_dir, os.fspath(tmp_path))
  row = exported.agreement.readers[-1]
  assert row.reader == 'ONNX' and row.allowed_drop is None
  assert row.max_difference <= 1e-5 and row.equal_top_1 == 1
  # Called like the network, and by onnxruntime alone.
  path = exported.files['ONNX']
  network = exported_network.ExportedNetwork(path)
  assert network.image_size == tiny_network.SIZE
  assert network.pixels_are_known and network.facts['step'] == tiny_network.STEP
  assert network.class_names == tuple(tiny_network.CLASS_NAMES)
  data = sample_images.evenly_spaced(config, 'validation', 12)
  images = next(data.batch(12).as_numpy_iterator())['image']
  model, _ = saved_model.restored_model(config, model_dir)
  np.testing.assert_allclose(
    tf.function(network)(images), model(images), atol=1e-4
  )
  (tmp_path / 'cut.onnx').write_bytes(pathlib.Path(path).read_bytes()[:1000])
  with pytest.raises(errors.ExportError, match=r'cut\.onnx: not an exported'):
    exported_network.ExportedNetwork(os.fspath(tmp_path / 'cut.onnx'))


def test_a_missing_converter_is_one_line(
  config, model_dir, tmp_path, monkeypatch
):
  monkeypatch.setitem(sys.modules, 'tf2onnx', None)
  settings = _with(config, onnx=True)
  with pytest.raises(errors.ExportError, match=r'^export\.onnx: ') as error:
    export_lib.export(settings, model_dir, os.fspath(tmp_path / 'export'))
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'export').exists()


@pytest.mark.once
def test_damaged_image(config, model_dir, tmp_path):
  for index, name in enumerate(tiny_network.CLASS_NAMES):
    folder = tmp_path / 'validation' / name
    folder.mkdir(parents=True)
    (folder / f'{index}.png').write_bytes(b'no image')
  data = dataclasses.replace(
    config.data, dir=os.fspath(tmp_path), num_eval_images=3
  )
  settings = dataclasses.replace(config, data=data)
  target = tmp_path / 'export'
  with pytest.raises(
    errors.DataError, match=r'/blue/0\.png: .*cannot be decoded \(8 bytes\)'
  ) as caught:
    export_lib.export(settings, model_dir, os.fspath(target))
  assert len(str(caught.value).splitlines()) == 1
  assert not list(target.iterdir())


@pytest.mark.once
def test_damaged_record(config, model_dir, tmp_path):
  feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b'no image']))
  label = tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))
  example = tf.train.Example(
    features=tf.train.Features(
      feature={'image/encoded': feature, 'image/class/label': label}
    )
  )
  path = os.fspath(tmp_path / 'validation-00000-of-00001')
  with tf.io.TFRecordWriter(path) as writer:
    for _ in range(2):
      writer.write(example.SerializeToString())
  data = dataclasses.replace(
    config.data, dir=os.fspath(tmp_path), num_eval_images=2
  )
  settings = dataclasses.replace(config, data=data)
  with pytest.raises(errors.DataError, match=r'validation-00000.*: record 0: '):
    export_lib.export(settings, model_dir, os.fspath(tmp_path / 'export'))
