"""Converts drawn images: class folders, tar files, damage and kills."""

import io
import json
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.data import sources
from tools import build_tfrecords
from tools.tfrecords import conftest
from tools.tfrecords import conversion
from tools.tfrecords import verification

_SHARDS, _CLASSES = conftest.SHARDS, conftest.CLASSES
_BROKEN = ('n01_empty.jpg', 'n01_text.jpg', 'n02_cut.JPEG')


def _files(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def _examples(path):
  for data in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
    yield tf.train.Example.FromString(data)


def _value(example, key):
  feature = example.features.feature[f'image/{key}']
  (value,) = feature.bytes_list.value or feature.int64_list.value
  return value


def test_every_image_is_written_once_with_its_features(raw, converted):
  repaired = 0
  for split, count in _SHARDS.items():
    sources = {path.name: path for path in (raw / split).rglob('*.JPEG')}
    mixed = 0
    for shard in range(count):
      path = converted / f'{split}-{shard:05d}-of-{count:05d}'
      labels = set()
      for example in _examples(path):
        source = sources.pop(_value(example, 'filename').decode())
        label = _value(example, 'class/label')
        labels.add(label)
        name = _CLASSES[label - 1]
        assert source.parent.name == name
        assert _value(example, 'class/synset').decode() == name
        assert _value(example, 'class/text').decode() == name
        encoded = _value(example, 'encoded')
        image = Image.open(io.BytesIO(encoded))
        assert (image.format, image.mode) == ('JPEG', 'RGB')
        sides = [_value(example, key) for key in ('width', 'height')]
        assert list(image.size) == sides
        assert _value(example, 'channels') == 3
        repaired += encoded != source.read_bytes()
      mixed += len(labels) > 1
    assert not sources
    assert mixed > count / 2
  assert repaired == 5
  assert (converted / 'labels.txt').read_text().split() == list(_CLASSES)


def test_the_first_20_shards_of_imagenet_are_minival():
  parts = conversion._parts(np.arange(1_281_167), 1024)
  assert len(parts) == 1024 and {len(part) for part in parts} == {1251, 1252}
  assert sum(len(part) for part in parts[:20]) == 25_022
  assert np.concatenate(parts).tolist() == list(range(1_281_167))


def test_says_what_was_written(raw, converted, capsys):
  conftest.convert(raw, converted)  # Everything is there: it only reports.
  assert capsys.readouterr().out.splitlines() == [
    'train: 120 of 120 images written to 30 shards; 5 repaired'
    ' (cmyk 1, gif 1, grey 1, png 1, rotated 1); 0 unreadable',
    'validation: 30 of 30 images written to 2 shards; 0 repaired; 0 unreadable',
  ]


def test_the_input_pipeline_reads_it(converted):
  data = config_lib.DataConfig(
    dir=str(converted), num_classes=3, num_train_images=120, num_eval_images=30
  )
  model = config_lib.ModelConfig(image_size=16)
  train = config_lib.TrainConfig(batch_size=8)
  config = config_lib.Config(model=model, data=data, train=train)
  source = sources.find(data, 'validation')
  labels: list[int] = []
  for batch in pipeline.eval_dataset(config, source, batch_size=8):
    labels += batch['label'][batch['weight'] > 0].numpy().tolist()
  assert sorted(labels) == sorted([0, 1, 2] * 10)


@pytest.fixture(scope='module')
def tars(raw, tmp_path_factory):
  """The same images as ImageNet's official files hold theirs."""
  root = tmp_path_factory.mktemp('tars')
  with tarfile.open(root / 'train.tar', 'w') as outer:
    for name in _CLASSES:
      with tarfile.open(root / f'{name}.tar', 'w') as inner:
        for path in (raw / 'train' / name).iterdir():
          inner.add(path, path.name)
      outer.add(root / f'{name}.tar', f'{name}.tar')
  paths = sorted((raw / 'validation').rglob('*.JPEG'), key=lambda p: p.name)
  with tarfile.open(root / 'validation.tar', 'w') as flat:
    for path in reversed(paths):
      flat.add(path, path.name)
  lines = ''.join(f'{path.parent.name}\n' for path in paths)
  (root / 'labels.txt').write_text(lines)
  return root


def test_bytes_depend_on_neither_source_nor_workers_nor_kills(
  tars, converted, tmp_path
):
  """Tar files, killed with one worker and resumed with three."""
  inputs = {split: str(tars / f'{split}.tar') for split in _SHARDS}
  labels = str(tars / 'labels.txt')
  command = [sys.executable, build_tfrecords.__file__, '--seed=3']
  command += ['--num_workers=1', f'--labels_file={labels}']
  command += [f'--input={split}={path}' for split, path in inputs.items()]
  command += [f'--num_shards={s}={count}' for s, count in _SHARDS.items()]
  command += [f'--output_dir={tmp_path}']
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
    deadline = time.monotonic() + 100
    while len(_recorded(tmp_path)) < 3:
      assert run.poll() is None and time.monotonic() < deadline
      time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=60)  # Ends when no worker is left either.
  finished = _recorded(tmp_path)
  before = {path: path.stat().st_mtime_ns for path in finished}
  assert len(finished) < 30
  conftest.convert(
    None, tmp_path, inputs=inputs, labels_file=labels, num_workers=3
  )
  assert _files(tmp_path) == _files(converted)
  assert before == {path: path.stat().st_mtime_ns for path in finished}


def _recorded(folder):
  """The shards that a manifest calls finished."""
  manifest = folder / 'train.manifest.json'
  if not manifest.exists():
    return []
  shards = json.loads(manifest.read_text())['shards']
  return [folder / f'train-{int(n):05d}-of-00030' for n in shards]


@pytest.mark.parametrize(
  'changes, problem',
  [
    ({'seed': 4}, 'begun with seed 3, not 4'),
    (
      {'num_shards': {'train': 29, 'validation': 2}},
      'begun with num_shards 30, not 29',
    ),
  ],
)
def test_other_settings_are_refused(raw, copy, changes, problem):
  before = _files(copy)
  with pytest.raises(errors.DataError, match=problem):
    conftest.convert(raw, copy, **changes)
  assert _files(copy) == before


def test_another_list_of_images_is_refused(raw, copy, tmp_path):
  root = Path(shutil.copytree(raw, tmp_path / 'raw'))
  (root / 'train/n01/train_n01_02.JPEG').unlink()
  with pytest.raises(errors.DataError, match='begun with images'):
    conftest.convert(root, copy)


def test_unreadable_files_fail_unless_allowed(raw, tmp_path, capsys):
  root = Path(shutil.copytree(raw, tmp_path / 'raw'))
  for name, data in zip(_BROKEN, (b'', b'text', _cut_jpeg())):
    (root / 'train' / name[:3] / name).write_bytes(data)
  output = tmp_path / 'output'
  with pytest.raises(errors.DataError, match=r'3 unreadable .*=2') as caught:
    conftest.convert(root, output, max_unreadable=2)
  assert '\n' not in str(caught.value)
  lines = capsys.readouterr().out.splitlines()
  for name, reason in zip(_BROKEN, ('empty', 'not an image', 'cut short')):
    (line,) = (line for line in lines if name in line)
    assert line.startswith(f'unreadable: {root}') and reason in line
  assert 'train: 120 of 123 images' in lines[3] and '3 unreadable' in lines[3]
  assert 27 <= len(list(output.glob('train-*'))) < 30
  conftest.convert(root, output, max_unreadable=3)
  assert len(list(output.glob('train-*'))) == 30
  verification.verify(str(output), num_workers=1)


def _cut_jpeg():
  buffer = io.BytesIO()
  conftest.draw(7).save(buffer, 'JPEG')
  return buffer.getvalue()[:-50]


def test_more_shards_than_images_are_refused(raw, tmp_path):
  counts = {'train': 121, 'validation': 2}
  with pytest.raises(config_lib.ConfigError, match='at most the 120 images'):
    conftest.convert(raw, tmp_path / 'out', num_shards=counts)
  assert not (tmp_path / 'out').exists()


def test_a_split_gets_shards_by_its_size(raw, tmp_path):
  for split, images, shards in (
    ('train', 1_281_167, 1024),
    ('validation', 50_000, 128),
    ('train', 10_000, 40),
    ('train', 60, 1),
  ):
    assert conversion._default_shards(split, images) == shards
  conftest.convert(raw, tmp_path, num_shards={})
  assert sorted(path.name for path in tmp_path.glob('*-of-*')) == [
    'train-00000-of-00001',
    'validation-00000-of-00001',
  ]
