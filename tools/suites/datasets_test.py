import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.data import sources
from efficientnet_advprop.evaluation import corruptions
from efficientnet_advprop.testing import tiny_data
from tools.suites import datasets
from tools.suites import suite as suite_lib

_SIDE, _PADDING = 24, 8


class _Brightener:
  """Stands for the package `imagecorruptions`, which is an extra."""

  @staticmethod
  def corrupt(image, severity, **_):
    return image + np.uint8(severity)


@pytest.fixture(name='data_dir')
def _data_dir(tmp_path, monkeypatch):
  monkeypatch.setattr(corruptions, 'package', lambda: _Brightener)
  monkeypatch.setattr(corruptions, 'NAMES', ('fog', 'frost'))
  data_dir = tmp_path / 'whole'
  data_dir.mkdir()
  tiny_data.write_split(data_dir, 'train', [7, 5])
  tiny_data.write_split(data_dir, 'validation', [3, 3])
  return str(data_dir)


def _suite(splits, corrupted_images=2):
  values = config_lib.to_dict(tiny_data.config(''))
  values['model']['image_size'] = _SIDE
  values['data'].update(eval_crop_padding=_PADDING, num_train_images=12)
  values['data'].update(num_eval_images=3)
  config = config_lib.from_dict(values)
  parts = {
    name: part
    if isinstance(part, suite_lib.Part)
    else suite_lib.Part(name, part)
    for name, part in splits.items()
  }
  return suite_lib.Suite('small', parts, corrupted_images, config, (), ())


def _read(directory, split):
  """Which images a split holds, and their sides."""
  found, sides = [], set()
  for path in sorted(tf.io.gfile.glob(f'{directory}/{split}-*')):
    for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
      feature = tf.train.Example.FromString(record).features.feature
      (encoded,) = feature['image/encoded'].bytes_list.value
      image = tf.io.decode_image(encoded).numpy()
      (label,) = feature['image/class/label'].int64_list.value
      found.append((int(image[0, 0, 0]), label))
      sides.add(image.shape)
  return found, sides


def test_a_part_is_at_even_distances_in_the_order_of_reading(
  tmp_path, data_dir
):
  """Which takes turns among files, as long as each has images."""
  directory = str(tmp_path / 'part')
  suite = _suite({'train': 4, 'validation': 3})
  datasets.prepare(suite, data_dir, directory, 1)
  order = [0, 7, 1, 8, 2, 9, 3, 10, 4, 11, 5, 6]
  found, _ = _read(directory, 'train')
  assert found == [(index, index % 3 + 1) for index in order[::3]]
  found, _ = _read(directory, 'validation')
  assert [index for index, _ in found] == [0, 1, 2]
  # What is there stays.
  path = os.path.join(directory, 'train-00000-of-00001')
  os.utime(path, (1, 1))
  datasets.prepare(suite, data_dir, directory, 1)
  assert os.stat(path).st_mtime == 1


def test_a_part_may_be_held_out_of_another_s_split(tmp_path, data_dir):
  """No image is in both; 0 corrupted images write no corruption."""
  directory = str(tmp_path / 'part')
  held_out = suite_lib.Part('train', 4)
  suite = _suite({'train': 4, 'held_out': held_out}, corrupted_images=0)
  datasets.prepare(suite, data_dir, directory, 1)
  order = [0, 7, 1, 8, 2, 9, 3, 10, 4, 11, 5, 6]
  left = [index for index in order if index not in order[::3]]
  found, _ = _read(directory, 'held_out')
  assert [index for index, _ in found] == left[::2]
  assert not os.path.exists(os.path.join(directory, 'corruptions'))
  suite = _suite({'train': 4, 'rest': suite_lib.Part('train', None)}, 0)
  datasets.prepare(suite, data_dir, str(tmp_path / 'rest'), 1)
  found, _ = _read(tmp_path / 'rest', 'rest')
  assert [index for index, _ in found] == left
  with pytest.raises(config_lib.ConfigError, match=r'splits\.b: .*at most 4'):
    suite = _suite(
      {'a': suite_lib.Part('train', 8), 'b': held_out._replace(images=5)}
    )
    datasets.prepare(suite, data_dir, str(tmp_path / 'few'), 1)


def test_whole_images_are_corrupted_and_cropped_once(tmp_path, data_dir):
  directory = str(tmp_path / 'part')
  suite = _suite({'train': None, 'validation': 3})
  datasets.prepare(suite, data_dir, directory, 1)
  found, sides = _read(directory, 'corrupted')
  assert sides == {(_SIDE + _PADDING, _SIDE + _PADDING, 3)}
  # Two of the three in the part, at every severity, in both corruptions.
  brightened = [
    (image + severity, image % 3 + 1)
    for image in (0, 1)
    for severity in range(1, 6)
  ]
  assert sorted(found) == sorted(2 * brightened)
  # And the pipeline finds the split by its name.
  config = suite.config
  data = dataclasses.replace(config.data, dir=directory)
  config = dataclasses.replace(config, data=data)
  assert sources.find(config.data, datasets.CORRUPTED).size == len(found)


def test_too_few_images_are_named(tmp_path, data_dir):
  with pytest.raises(config_lib.ConfigError, match=r'splits\.train: .*most 12'):
    datasets.prepare(_suite({'train': 13}), data_dir, str(tmp_path), 1)
  with pytest.raises(errors.DataError, match='nowhere'):
    datasets.prepare(_suite({'train': 4}), '/nowhere', str(tmp_path), 1)
