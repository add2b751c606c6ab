import dataclasses
import os

import numpy as np
import tensorflow as tf

from efficientnet_advprop.export import sample_images
from efficientnet_advprop.testing import tiny_network


def test_samples_come_from_all_classes(config):
  found = list(
    sample_images.evenly_spaced(config, 'validation', 3).as_numpy_iterator()
  )
  assert sorted(example['label'] for example in found) == [0, 1, 2]
  image = found[0]['image']
  assert image.shape == (32, 32, 3)
  assert np.min(image) >= -1 and np.max(image) <= 1
  every = sample_images.evenly_spaced(config, 'validation', 100)
  assert len({e['encoded'] for e in every.as_numpy_iterator()}) == 12


def test_class_names(config, tmp_path):
  assert sample_images.class_names(config) == tiny_network.CLASS_NAMES
  record = tf.train.Example().SerializeToString()
  with tf.io.TFRecordWriter(
    os.fspath(tmp_path / 'validation-00000-of-00001')
  ) as writer:
    writer.write(record)
  data = dataclasses.replace(
    config.data, dir=os.fspath(tmp_path), num_eval_images=1
  )
  bare = dataclasses.replace(config, data=data)
  assert sample_images.class_names(bare) is None
  (tmp_path / 'labels.txt').write_text('a\nb\nc\n')
  assert sample_images.class_names(bare) == ['a', 'b', 'c']
