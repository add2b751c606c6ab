"""Whole test sets, with corruptions that cost nothing."""

import dataclasses
import json
import os

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.config import recipes
from efficientnet_advprop.data import sources
from efficientnet_advprop.evaluation import corrupted_sets
from efficientnet_advprop.evaluation import corruptions
from efficientnet_advprop.testing import tiny_data

pytestmark = pytest.mark.once


@pytest.fixture(name='config')
def _config(tmp_path, monkeypatch):
  def fake(image, severity, corruption_name):
    return np.uint8(np.clip(image.astype(int) + severity, 0, 255))

  class Package:
    corrupt = staticmethod(
      lambda image, severity, corruption_name, seed=None: fake(
        image, severity, corruption_name
      )
    )

  monkeypatch.setattr(corruptions, 'package', Package)
  monkeypatch.setattr(corruptions, 'NAMES', ('fog', 'frost'))
  monkeypatch.setattr(
    corruptions, 'strengths_for', lambda _: 'imagecorruptions'
  )
  data = tmp_path / 'data'
  data.mkdir()
  tiny_data.write_split(data, 'validation', [4, 3])
  config = tiny_data.config(data)
  overrides = ['model.image_size=32']
  values = config_lib.to_dict(config)
  return config_lib.from_dict(recipes.apply_overrides(values, overrides))


def _read(directory, name, severity):
  """Which images of `tiny_data` a file holds, its labels, what was added."""
  path = os.path.join(directory, name, f'{severity}-00000-of-00001')
  indices, labels, added = [], [], []
  for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
    example = tf.train.Example.FromString(record).features.feature
    (encoded,) = example['image/encoded'].bytes_list.value
    image = tf.io.decode_image(encoded).numpy()
    assert image.shape == (32, 32, 3)
    # Green was 0, red the number of the image.
    added += np.unique(image[..., 1]).tolist()
    indices += np.unique(image[..., 0] - image[..., 1]).tolist()
    labels += example['image/class/label'].int64_list.value
  return indices, labels, added


def test_the_images_are_listed_once(config, tmp_path, monkeypatch):
  """And not once for each corruption: they can be a million names."""
  monkeypatch.setattr(corruptions, 'NAMES', ('fog', 'frost', 'snow'))
  directory = str(tmp_path / 'folders')
  tiny_data.write_class_folders(directory, {'train': 3, 'validation': 7})
  data = dataclasses.replace(config.data, dir=directory)
  config = dataclasses.replace(config, data=data)
  with tiny_data.counting_listings() as counts:
    corrupted_sets.write(config, str(tmp_path / 'corrupted'))
  assert counts[os.path.join(directory, 'validation', 'class_0')] == 1


def test_a_set_holds_every_image_corrupted(config, tmp_path):
  directory = tmp_path / 'corrupted'
  shown = []
  corrupted_sets.write(
    config, str(directory), report=lambda *numbers: shown.append(numbers)
  )
  assert shown == [(1, 2), (2, 2)]
  for name, severity in (('fog', 1), ('frost', 5)):
    indices, labels, added = _read(directory, name, severity)
    assert sorted(indices) == list(range(7))
    assert labels == [index % 3 + 1 for index in indices]
    assert added == [severity] * 7
  # Interrupted, it is resumed.
  lost = directory / 'frost' / '2-00000-of-00001'
  kept = directory / 'frost' / '3-00000-of-00001'
  content = lost.read_bytes()
  lost.unlink()
  os.utime(kept, (1, 1))
  corrupted_sets.write(config, str(directory))
  assert lost.read_bytes() == content
  assert kept.stat().st_mtime == 1


def test_a_part_of_the_images_is_spread_evenly(config, tmp_path):
  whole, part = tmp_path / 'whole', tmp_path / 'part'
  corrupted_sets.write(config, str(whole))
  corrupted_sets.write(config, str(part), num_images=3)
  indices, _, _ = _read(whole, 'fog', 1)
  assert _read(part, 'fog', 1)[0] == [indices[n] for n in (0, 2, 4)]


def test_what_cannot_be_written_is_refused(config, tmp_path):
  directory = str(tmp_path / 'corrupted')
  with pytest.raises(config_lib.ConfigError, match='1 to 7'):
    corrupted_sets.write(config, directory, num_images=8)
  corrupted_sets.write(config, directory, num_images=1)
  with pytest.raises(errors.DataError, match='seed is 0, not 1'):
    corrupted_sets.write(config, directory, seed=1, num_images=1)
  small = tiny_data.config(sources.data_dir(config.data))
  with pytest.raises(config_lib.ConfigError, match='at least 32'):
    corrupted_sets.write(small, str(tmp_path / 'small'))
  assert not tf.io.gfile.exists(str(tmp_path / 'small'))


def test_a_set_of_other_strengths_is_another_set(config, tmp_path):
  directory = tmp_path / 'corrupted'
  corrupted_sets.write(config, str(directory), num_images=1)
  manifest = directory / corrupted_sets.MANIFEST
  facts = json.loads(manifest.read_text())
  assert facts.pop('strengths') == 'imagecorruptions'
  assert corrupted_sets.strengths_of(str(directory)) == 'imagecorruptions'
  manifest.write_text(json.dumps(facts))  # As earlier versions wrote it.
  assert corrupted_sets.strengths_of(str(directory)) is None
  corrupted_sets.write(config, str(directory), num_images=1)
  with pytest.raises(errors.DataError, match="strengths is 'imagecorruptions'"):
    corrupted_sets.write(
      config, str(directory), num_images=1, strengths='cifar_c'
    )
