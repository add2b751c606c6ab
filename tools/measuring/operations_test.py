"""The comparison with Pillow, and what it prints."""

import json

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.data import augmentation
from tools.measuring import operations
from tools.measuring import paths


@pytest.fixture(name='picture')
def _picture():
  noise = np.random.default_rng(0).integers(0, 256, [24, 24, 3], np.uint8)
  return np.repeat(np.repeat(noise, 2, 0), 2, 1)


@pytest.mark.parametrize('name', augmentation.RANDAUGMENT_OPERATIONS)
def test_operations_equal_pillow(name, picture):
  assert operations.largest_difference(name, [picture]) == 0


def test_a_difference_is_seen(picture, monkeypatch):
  def off_by_three(image, name, value):
    del name, value
    return tf.where(image < 250, image + 3, image)

  monkeypatch.setattr(augmentation, 'apply_operation', off_by_three)
  assert operations.largest_difference('ShearX', [picture]) >= 3


def test_both_directions_are_compared():
  values = operations.magnitudes('Rotate', 224)
  assert min(values) == -30 and max(values) == 30
  assert min(operations.magnitudes('Solarize', 224)) == 0


def test_the_last_line_is_json_of_all(monkeypatch, capsys):
  def measured(measured_paths, rounds, images):
    del rounds, images
    return {name: [1.0 + i] for i, name in enumerate(measured_paths)}

  monkeypatch.setattr(paths, 'measure', measured)
  monkeypatch.setattr(
    operations, 'largest_difference', lambda name, _: name == 'Color'
  )
  assert operations.report(rounds=1, images=50, size=48)
  result = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert result.pop('max_difference') == 1
  assert result['AutoContrast'] == {'ours': 1, 'official': 2, 'pillow': 4}
  assert result['Sharpness']['official'] is None
  assert result['decode the crop'] == result['AutoAugment'] == 1
  assert set(augmentation.RANDAUGMENT_OPERATIONS) < set(result)
