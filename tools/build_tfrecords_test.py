"""The converter on drawn images: folders, tar files, damage, kills, checks."""

import io
import json
from pathlib import Path
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time

from absl import flags
import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.data import sources
from tools import build_tfrecords

_TOOL = Path(__file__).with_name('build_tfrecords.py')
_CLASSES = ('n01', 'n02', 'n03')
_SHARDS = {'train': 30, 'validation': 2}
_BROKEN = ('n01_empty.jpg', 'n01_text.jpg', 'n02_cut.JPEG')


def _draw(number):
  colors = np.random.default_rng(number).integers(0, 256, [3, 4, 3], np.uint8)
  return Image.fromarray(colors).resize((40 + number % 5, 30))


@pytest.fixture(scope='module')
def raw(tmp_path_factory):
  """Class folders of 120 and 30 sound images, the former with 5 odd ones."""
  root = tmp_path_factory.mktemp('raw')
  for split, per_class in (('train', 40), ('validation', 10)):
    for place, name in enumerate(_CLASSES):
      folder = root / split / name
      folder.mkdir(parents=True)
      for number in range(per_class):
        image = _draw(place * 100 + number)
        image.save(folder / f'{split}_{name}_{number:02d}.JPEG')
  folder = root / 'train'
  exif = Image.Exif()
  exif[0x0112] = 6
  _draw(1).convert('CMYK').save(folder / 'n01/train_n01_00.JPEG')
  _draw(2).convert('L').save(folder / 'n01/train_n01_01.JPEG')
  _draw(3).save(folder / 'n02/train_n02_00.JPEG', 'PNG')
  _draw(4).save(folder / 'n02/train_n02_01.JPEG', exif=exif)
  _draw(5).save(folder / 'n03/train_n03_00.JPEG', 'GIF')
  return root


def _convert(root, output, **changes):
  options = {
    'inputs': {split: f'{root}/{split}' for split in _SHARDS},
    'num_shards': _SHARDS,
    'labels_file': None,
    'seed': 3,
    'num_workers': 1,
    'max_unreadable': 0,
    **changes,
  }
  build_tfrecords.convert(str(output), **options)


def _files(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope='module')
def converted(raw, tmp_path_factory):
  output = tmp_path_factory.mktemp('converted')
  _convert(raw, output)
  return output


@pytest.fixture
def copy(converted, tmp_path):
  return Path(shutil.copytree(converted, tmp_path / 'copy'))


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
  parts = build_tfrecords._parts(np.arange(1_281_167), 1024)
  assert len(parts) == 1024 and {len(part) for part in parts} == {1251, 1252}
  assert sum(len(part) for part in parts[:20]) == 25_022
  assert np.concatenate(parts).tolist() == list(range(1_281_167))


def test_says_what_was_written(raw, converted, capsys):
  _convert(raw, converted)  # Everything is there: it only reports.
  assert capsys.readouterr().out.splitlines() == [
    'train: 120 of 120 images written to 30 shards; 5 repaired'
    ' (cmyk 1, gif 1, grey 1, png 1, rotated 1); 0 unreadable',
    'validation: 30 of 30 images written to 2 shards; 0 repaired; 0 unreadable',
  ]


def test_workers_do_not_change_a_byte(raw, converted, tmp_path):
  _convert(raw, tmp_path, num_workers=3)
  assert _files(tmp_path) == _files(converted)


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


def test_a_killed_run_goes_on_to_the_same_bytes(raw, converted, tmp_path):
  command = [sys.executable, str(_TOOL), '--seed=3', '--num_workers=1']
  command += [f'--input={split}={raw / split}' for split in _SHARDS]
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
  _convert(raw, tmp_path)
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
    _convert(raw, copy, **changes)
  assert _files(copy) == before


def test_another_list_of_images_is_refused(raw, copy, tmp_path):
  root = Path(shutil.copytree(raw, tmp_path / 'raw'))
  (root / 'train/n01/train_n01_02.JPEG').unlink()
  with pytest.raises(errors.DataError, match='begun with images'):
    _convert(root, copy)


def test_unreadable_files_fail_unless_allowed(raw, tmp_path, capsys):
  root = Path(shutil.copytree(raw, tmp_path / 'raw'))
  for name, data in zip(_BROKEN, (b'', b'text', _cut_jpeg())):
    (root / 'train' / name[:3] / name).write_bytes(data)
  output = tmp_path / 'output'
  with pytest.raises(errors.DataError, match=r'3 unreadable .*=2') as caught:
    _convert(root, output, max_unreadable=2)
  assert '\n' not in str(caught.value)
  lines = capsys.readouterr().out.splitlines()
  for name, reason in zip(_BROKEN, ('empty', 'not an image', 'cut short')):
    (line,) = (line for line in lines if name in line)
    assert line.startswith(f'unreadable: {root}') and reason in line
  assert 'train: 120 of 123 images' in lines[3] and '3 unreadable' in lines[3]
  assert 27 <= len(list(output.glob('train-*'))) < 30
  _convert(root, output, max_unreadable=3)
  assert len(list(output.glob('train-*'))) == 30
  build_tfrecords.verify(str(output), num_workers=1)


def _cut_jpeg():
  buffer = io.BytesIO()
  _draw(7).save(buffer, 'JPEG')
  return buffer.getvalue()[:-50]


# --- Tar files --------------------------------------------------------------


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


def test_tar_files_become_the_same_bytes_as_folders(tars, converted, tmp_path):
  inputs = {split: str(tars / f'{split}.tar') for split in _SHARDS}
  labels = str(tars / 'labels.txt')
  _convert(None, tmp_path, inputs=inputs, labels_file=labels)
  assert _files(tmp_path) == _files(converted)


# --- Verifying --------------------------------------------------------------


def _flip_a_bit(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def _rewrite(path, change):
  examples = list(_examples(path))
  change(examples)
  with tf.io.TFRecordWriter(str(path)) as writer:
    for example in examples:
      writer.write(example.SerializeToString())


def _set_label(label):
  def change(examples):
    feature = examples[2].features.feature['image/class/label']
    old = feature.int64_list.value[0]
    feature.int64_list.value[0] = label or old % 3 + 1

  return lambda path: _rewrite(path, change)


def _set_height(examples):
  feature = examples[1].features.feature['image/height']
  feature.int64_list.value[0] += 1


def _damage_jpeg(examples):
  feature = examples[1].features.feature['image/encoded']
  feature.bytes_list.value[0] = feature.bytes_list.value[0][:-60]


@pytest.mark.parametrize(
  'damage, problem',
  [
    (_flip_a_bit, r'record \d: damaged'),
    (lambda p: p.write_bytes(p.read_bytes()[:-9]), 'record 14: the file ends'),
    (lambda p: _rewrite(p, lambda e: e.pop()), '14 records, 15 were written'),
    (lambda p: p.unlink(), 'missing'),
    (_set_label(4), r'record 2: the label 4 is not in 1\.\.3'),
    (_set_label(None), r'record 2: the label \d is of'),
    (lambda p: _rewrite(p, _set_height), 'record 1: the image is'),
    (lambda p: _rewrite(p, _damage_jpeg), 'record 1: .*cannot be decoded'),
  ],
)
def test_verify_names_file_and_record(copy, capsys, damage, problem):
  path = copy / 'validation-00001-of-00002'
  damage(path)
  # One split is enough, and quicker.
  (copy / 'train.manifest.json').unlink()
  with pytest.raises(errors.DataError, match='problems, listed above'):
    build_tfrecords.verify(str(copy), num_workers=1)
  lines = capsys.readouterr().out.splitlines()
  pattern = f'{re.escape(str(path))}: {problem}'
  assert any(re.match(pattern, line) for line in lines), lines


def test_verify_counts_classes(copy, capsys):
  def relabel(examples):
    names = examples[0].features.feature
    label = names['image/class/label'].int64_list.value[0] % 3 + 1
    names['image/class/label'].int64_list.value[0] = label
    synset = _CLASSES[label - 1].encode()
    names['image/class/synset'].bytes_list.value[0] = synset

  (copy / 'train.manifest.json').unlink()
  _rewrite(copy / 'validation-00000-of-00002', relabel)
  with pytest.raises(errors.DataError, match='2 problems, listed above'):
    build_tfrecords.verify(str(copy), num_workers=1)
  output = capsys.readouterr().out
  assert ': 9 records of 10' in output and ': 11 records of 10' in output


def test_verify_accepts_what_was_written(converted, capsys):
  build_tfrecords.verify(str(converted), num_workers=2)
  expected = ['train: 120 records read', 'validation: 30 records read']
  assert capsys.readouterr().out.splitlines() == expected


# --- Flags ------------------------------------------------------------------


@pytest.mark.parametrize(
  'given, problem',
  [
    (['--input=train=x'], '--output_dir is needed'),
    (['--output_dir=x'], 'either --input or --verify'),
    (['--output_dir=x', '--verify', '--input=train=x'], 'either --input or'),
    (['--output_dir=x', '--input=train'], "got 'train'; allowed: <split>="),
    (['--output_dir=x', '--input=a=b', '--input=a=c'], "'a' is given twice"),
    (['--output_dir=x', '--input=a=b', '--num_shards=a=0'], "got '0'"),
    (['--output_dir=x', '--input=a=b', '--num_shards=b=1'], "no split 'b'"),
    (['--output_dir=x', '--verify', '--num_workers=0'], 'num_workers'),
    (['--output_dir=x', '--verify', 'more'], "'more' is not a flag"),
  ],
)
def test_wrong_flags_end_in_one_line(given, problem, capsys):
  values = flags.FlagValues()
  build_tfrecords.define_flags(values)
  with pytest.raises(SystemExit) as caught:
    build_tfrecords.parser(values)(['build_tfrecords', *given])
  assert caught.value.code == 2
  error = capsys.readouterr().err
  assert problem in error and error.count('\n') == 1


def test_more_shards_than_images_are_refused(raw, tmp_path):
  counts = {'train': 121, 'validation': 2}
  with pytest.raises(config_lib.ConfigError, match='at most the 120 images'):
    _convert(raw, tmp_path / 'out', num_shards=counts)
  assert not (tmp_path / 'out').exists()


def test_a_split_gets_shards_by_its_size(raw, tmp_path):
  for split, images, shards in (
    ('train', 1_281_167, 1024),
    ('validation', 50_000, 128),
    ('train', 10_000, 40),
    ('train', 60, 1),
  ):
    assert build_tfrecords._default_shards(split, images) == shards
  _convert(raw, tmp_path, num_shards={})
  assert sorted(path.name for path in tmp_path.glob('*-of-*')) == [
    'train-00000-of-00001',
    'validation-00000-of-00001',
  ]
