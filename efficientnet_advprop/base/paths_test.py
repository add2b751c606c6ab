import glob
import os

from efficientnet_advprop.base import paths


def test_recipes_and_data_are_there():
  assert os.path.isfile(paths.recipe('imagenet/efficientnet-b0'))
  assert os.path.isfile(paths.recipe('demo'))
  assert glob.glob(os.path.join(paths.embedded_data(), 'train-*'))


def test_a_recipe_means_the_same_from_anywhere(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert paths.config_file('hparams/demo.yaml') == paths.recipe('demo')
  assert paths.config_file('hparams/none.yaml') == 'hparams/none.yaml'
  (tmp_path / 'hparams').mkdir()
  (tmp_path / 'hparams' / 'demo.yaml').touch()
  assert paths.config_file('hparams/demo.yaml') == 'hparams/demo.yaml'


def test_the_commands_of_tools_are_known_by_name():
  tools = paths.tools()
  assert os.path.isfile(tools['build_tfrecords'])
  assert not any(name.endswith('_test') for name in tools)
