"""What a start and a resumption read, counted on a few hundred records.

tools/benchmark_scale.py measures the seconds at ImageNet's size.
"""

import json
import os

import pytest
import tensorflow as tf

from efficientnet_advprop.data import pipeline
from efficientnet_advprop.data import records
from efficientnet_advprop.data import shards
from efficientnet_advprop.data import sources
from efficientnet_advprop.data import tfrecords
from efficientnet_advprop.testing import tiny_data

_COUNTS = (100, 101, 99, 100)
_SIZE = sum(_COUNTS)
_WINDOW, _BATCH = 40, 4
# How far tf.data may read ahead: buffers of batches and of parallel calls.
_AHEAD = 160


class _Counter:
  """Counts the elements that pass through datasets."""

  def __init__(self):
    self.count = 0

  def watch(self, dataset):
    def add():
      self.count += 1
      return True

    def pass_on(element):
      with tf.control_dependencies([tf.py_function(add, [], tf.bool)]):
        return tf.nest.map_structure(tf.identity, element)

    return dataset.map(pass_on)


@pytest.fixture(name='config', scope='module')
def _config(tmp_path_factory):
  directory = os.fspath(tmp_path_factory.mktemp('scale'))
  tiny_data.write_split(directory, 'train', _COUNTS)
  return tiny_data.config(
    directory, _BATCH, num_train_images=_SIZE, shuffle_window=_WINDOW
  )


@pytest.fixture(name='source', scope='module')
def _source(config):
  return sources.find(config.data, 'train')


@pytest.fixture(name='headers')
def _headers(monkeypatch):
  """How many headers of records are read, by the file's descriptor."""
  read, lengths = os.pread, []

  def counted(file, length, offset):
    lengths.append(length)
    return read(file, length, offset)

  monkeypatch.setattr(tfrecords.os, 'pread', counted)
  return lengths


def test_a_start_counts_records_by_their_headers_alone(config, headers):
  assert sources.find(config.data, 'train').counts == _COUNTS
  assert headers == [tfrecords.HEADER_BYTES] * _SIZE


def test_a_start_with_a_manifest_reads_no_record(
  config, source, headers, monkeypatch
):
  monkeypatch.setattr(shards, '_COUNTED_BYTES', 0)
  stated = {
    number: {'bytes': os.path.getsize(path), 'written': count}
    for number, (path, count) in enumerate(zip(source.files, _COUNTS))
  }
  path = os.path.join(config.data.dir, 'train' + shards.MANIFEST_SUFFIX)
  with open(path, 'w', encoding='utf-8') as file:
    json.dump({'shards': stated}, file)
  monkeypatch.setattr(tf.data, 'TFRecordDataset', None)  # Nobody opens one.
  with tiny_data.counting_listings() as listings:
    found = sources.find(config.data, 'train')
  os.remove(path)
  assert found.counts == _COUNTS
  assert not headers
  assert sum(listings.values()) == 1


@pytest.mark.parametrize('epochs, skipped', [(0, 0), (1000, 200)])
def test_a_resumed_run_reads_a_part_of_an_epoch_and_decodes_none_of_it(
  config, source, monkeypatch, epochs, skipped
):
  """Whole epochs are skipped by arithmetic."""
  reads, decodings = _Counter(), _Counter()
  read, decode = records.read, pipeline._decoded_batches

  def counting_read(*arguments):
    return reads.watch(read(*arguments))

  def counting_decode(stream, *arguments):
    return decode(decodings.watch(stream), *arguments)

  monkeypatch.setattr(records, 'read', counting_read)
  monkeypatch.setattr(pipeline, '_decoded_batches', counting_decode)
  start = (epochs * _SIZE + skipped) // _BATCH
  (batch,) = pipeline.train_dataset(config, source, start).take(1)
  assert batch['seed'][0, 1] == start * _BATCH
  assert _BATCH <= decodings.count <= _AHEAD
  least = skipped + _WINDOW
  assert least <= reads.count <= least + _AHEAD
