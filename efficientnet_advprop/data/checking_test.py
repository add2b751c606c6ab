import os

import numpy as np
import tensorflow as tf

from efficientnet_advprop.data import checking
from efficientnet_advprop.data import sources
from efficientnet_advprop.testing import tiny_data


def _check(directory, **settings):
  settings = {'max_bad_records': 100, 'num_train_images': None, **settings}
  config = tiny_data.config(directory, **settings).data
  found = list(checking.check(sources.find_set(config, 'train')))
  done = [checked.done for checked in found]
  assert done == sorted(set(done))
  return done, [line for checked in found for line in checked.problems]


def test_problems_come_in_the_order_of_the_files(tmp_path):
  tiny_data.write_class_folders(tmp_path, {'train': 60})
  bad = [f'class_{n % 3}/{n:04d}.png' for n in (0, 31, 59)]
  for name in bad:
    (tmp_path / 'train' / name).write_bytes(b'nothing')
  done, problems = _check(tmp_path)
  assert done[-1] == 60 and len(done) >= 60 / 16
  folder = os.path.join(tmp_path, 'train')
  assert [line.split(': ')[0] for line in problems] == [
    os.path.join(folder, name) for name in sorted(bad)
  ]


def test_a_jpeg_is_decoded_to_its_end(tmp_path):
  """Most training crops of this one can be decoded."""
  noise = np.random.default_rng(0).integers(0, 256, [96, 96, 3], np.uint8)
  whole = tf.io.encode_jpeg(noise, quality=95).numpy()
  images = [whole, whole[: int(0.95 * len(whole))]]
  path = tmp_path / 'train-00000-of-00001'
  tiny_data.write_shard(path, [tiny_data.example(image, 1) for image in images])
  done, problems = _check(tmp_path)
  assert done == [2]
  assert [line.startswith(f'{path}: record 1: ') for line in problems] == [True]


def test_labels_are_checked_against_the_number_of_classes(tmp_path):
  paths = tiny_data.write_split(tmp_path, 'train', [4, 3])
  assert _check(tmp_path) == ([7], [])
  _, problems = _check(tmp_path, num_classes=2)
  # Shards are read in turns.
  assert sorted(problems) == [
    f'{paths[0]}: record 2: the label 3 is not in 1..2',
    f'{paths[1]}: record 1: the label 3 is not in 1..2',
  ]
