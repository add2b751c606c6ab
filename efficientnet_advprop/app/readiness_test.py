import dataclasses
import shutil
from types import SimpleNamespace

import pytest
import tensorflow as tf

from efficientnet_advprop.app import readiness
from efficientnet_advprop.base import errors
from efficientnet_advprop.testing import tiny_data


def _trainer(model_dir):
  """Variables of 3 x 1 MiB."""
  part = SimpleNamespace(variables=[tf.Variable(tf.zeros([2**18]))])
  config = SimpleNamespace(train=SimpleNamespace(keep_checkpoints=3))
  return SimpleNamespace(
    model=part,
    average=part,
    optimizer=part,
    model_dir=str(model_dir),
    config=config,
  )


@pytest.mark.parametrize(
  'saved, free, words',
  [
    (0, 12, ''),
    (0, 11, 'need 12.0 MiB more'),
    (2, 6, ''),
    (2, 5, 'need 6.0 MiB more'),
  ],
)
def test_too_little_space_for_all_checkpoints_is_said(
  tmp_path, monkeypatch, caplog, saved, free, words
):
  """Three are kept of 3 MiB each, and a fourth is there for a moment."""
  usage = SimpleNamespace(free=free * 2**20)
  monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage)
  (tmp_path / 'checkpoints').mkdir()
  for step in range(saved):
    (tmp_path / 'checkpoints' / f'ckpt-{step}.index').touch()
  with caplog.at_level('WARNING', 'absl'):
    readiness.check_space(_trainer(tmp_path))
  assert words in caplog.text and bool(caplog.text) == bool(words)


@pytest.mark.parametrize('free, is_enough', [(4, True), (2, False)])
def test_a_checkpoint_must_fit(tmp_path, monkeypatch, free, is_enough):
  usage = SimpleNamespace(free=free * 2**20)
  monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage)
  if is_enough:
    readiness.check_space(_trainer(tmp_path))
    return
  words = f'^{tmp_path}: 2.0 MiB are free; a checkpoint needs 3.0 MiB$'
  with pytest.raises(errors.CheckpointError, match=words):
    readiness.check_space(_trainer(tmp_path))


def test_an_export_that_cannot_be_written_is_known_before(tmp_path):
  tiny_data.write_split(tmp_path, 'validation', [7])
  config = tiny_data.config(tmp_path)
  target = tmp_path / 'export'
  readiness.check_export(config, str(target))
  assert not target.exists()  # It leaves nothing behind.
  with pytest.raises(errors.ExportError, match='cannot be written to'):
    readiness.check_export(config, '/sys/export')
  (tmp_path / 'labels.txt').write_text('one\ntwo\n')
  with pytest.raises(errors.ExportError, match='2 names for 3 classes'):
    readiness.check_export(config, str(target))


def test_a_missing_converter_is_known_before(tmp_path, monkeypatch):
  tiny_data.write_split(tmp_path, 'validation', [7])
  config = tiny_data.config(tmp_path)
  export = dataclasses.replace(config.export, onnx=True)
  config = dataclasses.replace(config, export=export)
  monkeypatch.setitem(__import__('sys').modules, 'tf2onnx', None)
  with pytest.raises(errors.ExportError, match=r'^export\.onnx: '):
    readiness.check_export(config, str(tmp_path / 'export'))
