import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.data import sources
from tools.measuring import photographs


@pytest.mark.parametrize('name', ['photographs', 'noise'])
def test_pictures_have_the_size_of_imagenet(name):
  if name == 'photographs':
    pytest.importorskip('sklearn')
  for encoded in photographs.find_pictures(name).jpegs:
    picture = tf.io.decode_jpeg(encoded).numpy()
    assert picture.shape == (400, 500, 3)
    assert picture.std() > 20


def test_pictures_can_be_those_of_a_folder():
  folder = sources.data_dir(config_lib.DataConfig())
  found = photographs.find_pictures(folder)
  assert len(found.jpegs) == 16 and folder in found.name
  with pytest.raises(errors.DataError, match='no such folder'):
    photographs.find_pictures('/nowhere')
