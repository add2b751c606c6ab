"""Verifies a conversion that was damaged in every way."""

import re

import pytest
import tensorflow as tf

from efficientnet_advprop.base import errors
from tools.tfrecords import conftest
from tools.tfrecords import verification


def _examples(path):
  for data in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
    yield tf.train.Example.FromString(data)


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
    verification.verify(str(copy), num_workers=1)
  lines = capsys.readouterr().out.splitlines()
  pattern = f'{re.escape(str(path))}: {problem}'
  assert any(re.match(pattern, line) for line in lines), lines


def test_verify_counts_classes(copy, capsys):
  def relabel(examples):
    names = examples[0].features.feature
    label = names['image/class/label'].int64_list.value[0] % 3 + 1
    names['image/class/label'].int64_list.value[0] = label
    synset = conftest.CLASSES[label - 1].encode()
    names['image/class/synset'].bytes_list.value[0] = synset

  (copy / 'train.manifest.json').unlink()
  _rewrite(copy / 'validation-00000-of-00002', relabel)
  with pytest.raises(errors.DataError, match='2 problems, listed above'):
    verification.verify(str(copy), num_workers=1)
  output = capsys.readouterr().out
  assert ': 9 records of 10' in output and ': 11 records of 10' in output


def test_verify_accepts_what_was_written(converted, capsys):
  verification.verify(str(converted), num_workers=2)
  expected = ['train: 120 records read', 'validation: 30 records read']
  assert capsys.readouterr().out.splitlines() == expected
