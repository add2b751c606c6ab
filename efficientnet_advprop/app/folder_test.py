import pytest

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import folder
from efficientnet_advprop.base import paths
from efficientnet_advprop.testing import tiny_runs


@pytest.mark.parametrize(
  'override',
  ['model.image_size=64', 'data.num_classes=7', 'train.method=mixture'],
)
def test_a_run_with_checkpoints_stays_the_run_it_is(tmp_path, override):
  recipe = paths.recipe('cifar10/vanilla')
  saved = config_lib.load_config(recipe)
  other = config_lib.load_config(recipe, [override])
  tiny_runs.write_settings(tmp_path, saved, has_checkpoint=True)
  folder.check_identity(saved, str(tmp_path))
  key = override.split('=')[0]
  with pytest.raises(config_lib.ConfigError, match=f'^{key}: .*--model_dir'):
    folder.check_identity(other, str(tmp_path))


def test_a_run_without_checkpoints_may_become_another(tmp_path):
  recipe = paths.recipe('demo')
  tiny_runs.write_settings(
    tmp_path, config_lib.load_config(recipe), has_checkpoint=False
  )
  tiny = tiny_runs.overrides(tiny_runs.EFFICIENTNET)
  other = config_lib.load_config(recipe, ['data.num_classes=7', *tiny])
  folder.check_identity(other, str(tmp_path))


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
  file = tmp_path / 'file'
  file.touch()
  with pytest.raises(config_lib.ConfigError) as caught:
    folder.make_writable(str(file / 'run'))
  line = str(caught.value)
  assert line.startswith('model_dir: got ') and '\n' not in line
  assert 'a folder that can be written' in line
  folder.make_writable(str(tmp_path / 'new' / 'run'))
  assert not list((tmp_path / 'new' / 'run').iterdir())
