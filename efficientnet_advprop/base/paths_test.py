import glob
import os

from efficientnet_advprop.base import paths


def test_recipes_and_data_are_there():
  assert os.path.isfile(paths.recipe('imagenet/efficientnet-b0'))
  assert os.path.isfile(paths.recipe('demo'))
  assert glob.glob(os.path.join(paths.embedded_data(), 'train-*'))
