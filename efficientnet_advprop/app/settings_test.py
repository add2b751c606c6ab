import functools
import glob
import os

import pytest

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import settings
from efficientnet_advprop.base import paths
from efficientnet_advprop.config import recipes
from efficientnet_advprop.testing import tiny_data
from efficientnet_advprop.testing import tiny_runs


@pytest.mark.parametrize(
  'model_name, epsilon, image_size',
  [('efficientnet-b4', 3, 380), ('efficientnet-b7', 4, 600)],
)
def test_the_paper_s_recipe_applies_to_a_data_dir(
  model_name, epsilon, image_size
):
  """Table 2's best strength for the network, on 1,281,167 images."""
  config = settings.resolve_config(model_name=model_name, data_dir='/data')
  assert config.model.name == model_name
  assert config.model.image_size == image_size
  assert config.attack.epsilon == epsilon
  assert (config.data.dir, config.data.num_train_images) == ('/data', 1281167)
  assert (config.train.epochs, config.train.batch_size) == (350, 4096)


def test_a_folder_of_photographs_is_enough(tmp_path, caplog):
  """Its numbers are counted, and the schedule is not that of ImageNet."""
  photos_dir = str(tmp_path / 'photos')
  tiny_data.write_class_folders(photos_dir, {'train': 40, 'validation': 8}, 4)
  with caplog.at_level('INFO', 'absl'):
    config = settings.resolve_config(data_dir=photos_dir)
  assert 'using the schedule of hparams/photos.yaml' in caplog.text
  data = config.data
  assert (data.num_classes, data.num_train_images) == (4, 40)
  assert data.num_eval_images == 8
  photos = config_lib.load_config(paths.recipe('photos'))
  assert config.train == photos.train
  os.rename(os.path.join(photos_dir, 'train'), str(tmp_path / 'flat'))
  data = settings.resolve_config(
    data_dir=str(tmp_path / 'flat'),
    overrides=['data.validation_fraction=0.1', 'train.batch_size=8'],
  ).data
  assert (data.num_train_images, data.num_eval_images) == (36, 4)


def test_every_recipe_of_imagenet_has_its_numbers():
  imagenet = os.path.dirname(paths.recipe('imagenet/efficientnet-b0'))
  found = glob.glob(os.path.join(imagenet, '**', '*.yaml'), recursive=True)
  assert len(found) > 100
  for path in found:
    data = config_lib.load_config(path).data
    numbers = data.num_classes, data.num_train_images, data.num_eval_images
    assert numbers == (1000, 1281167, 50000), path


def test_the_embedded_data_set_keeps_the_network_and_the_attack():
  config = settings.resolve_config(model_name='efficientnet-b4')
  demo = settings.resolve_config(config_file=paths.recipe('demo'))
  assert config.model.width_coefficient == 1.4
  assert config.attack.epsilon == 3
  assert config.data == demo.data and config.train == demo.train


def test_a_run_s_own_recipe_comes_before_the_paper_s(tmp_path):
  saved = settings.resolve_config(
    config_file=paths.recipe('demo'), overrides=['train.epochs=3']
  )
  tiny_runs.write_settings(tmp_path, saved, has_checkpoint=True)
  assert settings.resolve_config(model_dir=str(tmp_path)) == saved
  changed = settings.resolve_config(
    model_dir=str(tmp_path), overrides=['train.epochs=4']
  )
  assert changed.train.epochs == 4


def test_a_run_that_has_begun_keeps_its_target(tmp_path):
  """Also under the recipe that it began with, which does not name a target."""
  recipe = paths.recipe('demo')
  begun = config_lib.load_config(recipe, ['attack.target=label'])
  tiny_runs.write_settings(tmp_path, begun, has_checkpoint=True)
  assert 'target: label' in (tmp_path / 'config.yaml').read_text()
  resume = functools.partial(
    settings.resolve_config, model_dir=str(tmp_path), config_file=recipe
  )
  assert resume() == begun
  assert resume(overrides=['attack.target=random']).attack.target == 'random'
  new = settings.resolve_config(str(tmp_path / 'new'), config_file=recipe)
  assert new.attack.target == 'random'
  assert new.eval.tests['attacked'].attack.target == 'label'


def test_the_embedded_data_is_named_with_its_cost():
  demo = settings.resolve_config(config_file=paths.recipe('demo'))
  assert settings.note_on_data(demo) == (
    'No --data_dir: training on the embedded data set of'
    f' {demo.data.num_train_images} drawings'
  )
  large = settings.resolve_config(model_name='efficientnet-b7')
  assert ' times the cost of hparams/demo.yaml' in settings.note_on_data(large)
  other = settings.resolve_config(data_dir='/data')
  assert settings.note_on_data(other) is None


def test_an_empty_data_dir_sets_the_embedded_data_back(tmp_path):
  saved = settings.resolve_config(config_file=paths.recipe('demo'))
  saved = config_lib.from_dict(
    recipes.merge(config_lib.to_dict(saved), {'data': {'dir': '/data'}})
  )
  tiny_runs.write_settings(tmp_path, saved, has_checkpoint=True)
  assert settings.resolve_config(str(tmp_path)).data.dir == '/data'
  assert settings.resolve_config(str(tmp_path), data_dir='').data.dir == ''
