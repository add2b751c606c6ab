"""The benchmark's arithmetic and output; its peers do the same work."""

import json

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.data import image_ops_test
from efficientnet_advprop.data import sources
from efficientnet_advprop.testing import pillow_operations
from tools import benchmark_input
from tools.measuring import input_peers


def _burn(milliseconds):
  """A path that takes so much of the CPU per image, by the test's clock."""

  def path(count):
    _burn.clock += milliseconds * 1e-3 * count

  return path


def test_the_last_line_is_json_of_the_ratios(monkeypatch, capsys):
  _burn.clock = 0.0
  costs = {
    'autoaugment': 0.5,
    'autoaugment, official': 2.0,
    'input, decoding alone': 1.25,
    'input, plain view': 2.0,
    'input, augmented view': 2.5,
    'input, both views': 2.6,
    'input, official': 5.0,
    'input, pillow': 3.0,
  }
  paths = {name: _burn(cost) for name, cost in costs.items()}
  monkeypatch.setattr(benchmark_input, 'paths', lambda *_: paths)
  monkeypatch.setattr(benchmark_input.time, 'process_time', lambda: _burn.clock)
  pictures = benchmark_input.Pictures('a name', [])
  benchmark_input.run(pictures, rounds=3, images=100, size=224)
  result = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert result == {
    'pictures': 'a name',
    'autoaugment_over_official': 4.0,
    'ceiling_over_official': 4.0,
    'input_over_official': 2.0,
    'input_over_pil': 1.2,
    'two_views': 1.3,
  }


@pytest.mark.parametrize('name', ['photographs', 'noise'])
def test_pictures_have_the_size_of_imagenet(name):
  if name == 'photographs':
    pytest.importorskip('sklearn')
  for encoded in benchmark_input.find_pictures(name).jpegs:
    picture = tf.io.decode_jpeg(encoded).numpy()
    assert picture.shape == (400, 500, 3)
    assert picture.std() > 20


def test_pictures_can_be_those_of_a_folder():
  folder = sources.data_dir(config_lib.DataConfig())
  found = benchmark_input.find_pictures(folder)
  assert len(found.jpegs) == 16 and folder in found.name
  with pytest.raises(errors.DataError, match='no such folder'):
    benchmark_input.find_pictures('/nowhere')


@pytest.mark.parametrize('name', sorted(input_peers.OFFICIAL))
def test_the_official_structure_does_the_same_work_as_pillow(name):
  picture = image_ops_test.IMAGES['photograph']
  value = {'Posterize': 5, 'Solarize': 90, 'SolarizeAdd': 33, 'Color': 1.54}
  value.update({'Rotate': 12.0, 'TranslateY': 40.0})
  value = value.get(name, 0.12)
  result = input_peers.OFFICIAL[name](tf.constant(picture), value)
  pillow = pillow_operations.apply(Image.fromarray(picture), name, value)
  difference = np.abs(result.numpy().astype(int) - np.asarray(pillow)).max(-1)
  # Nearest sampling from pixel corners, not centres, picks other neighbours.
  if name in ('Rotate', 'ShearX', 'ShearY'):
    difference = difference[2:-2, 2:-2]
    assert np.median(difference) <= 8
  else:
    assert difference.max() <= 1
