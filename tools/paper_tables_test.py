import json
import os

import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import execution
from efficientnet_advprop.base import paths
from efficientnet_advprop.evaluation import paper_results
from efficientnet_advprop.training import trainer as trainer_lib
from tools import paper_tables

_RESULTS = paper_results.results()
_METHODS = {
  '': 'advprop',
  'strength': 'advprop',
  'attackers': 'advprop',
  'inception_advprop': 'advprop',
  'inception': 'vanilla',
}


def _path(recipe):
  return paths.recipe(f'imagenet/{recipe}')


@pytest.mark.parametrize('recipe', sorted({r.recipe for r in _RESULTS}))
def test_every_number_has_its_recipe(recipe):
  config = config_lib.load_config(_path(recipe))
  folder, _, name = recipe.rpartition('/')
  assert name.startswith(config.model.name)
  assert config.train.method == _METHODS.get(folder, folder)
  with open(_path(recipe), encoding='utf-8') as file:
    header = file.read().split('\nbase:')[0]
  for result in _RESULTS:
    if result.recipe != recipe:
      continue
    assert result.column == config.model.name
    if result.test == 'main' and result.published is not None:
      assert f'{result.published:.1f}% top-1' in header
    if result.test == 'auxiliary':
      assert config.eval.tests['auxiliary'].domain == 'adversarial'
  if '-epsilon-' in recipe:
    assert config.attack.epsilon == int(recipe[-1])
  if folder in ('mixture', 'adversarial', 'pretrain_finetune', 'attackers'):
    assert config.attack.epsilon in (4, 6) and config.attack.num_steps in (5, 7)
  if folder == 'attackers':
    assert config.attack.name == recipe.rsplit('-', 1)[1]
  is_plain = folder.startswith('inception') or 'resnet' in name
  assert config.data.augmentation == ('none' if is_plain else 'autoaugment')
  # But for those, a recipe is the official one at its full length.
  length = (120, 256) if 'resnet' in name else (350, 4096)
  assert (config.train.epochs, config.train.batch_size) == length


def test_every_recipe_belongs_to_a_number():
  folder = os.path.dirname(_path('x'))
  found = {
    os.path.relpath(os.path.join(where, name), folder)[: -len('.yaml')]
    for where, _, names in os.walk(folder)
    for name in names
  }
  # Fast AdvProp has a paper of its own.
  found = {name for name in found if not name.startswith('fast/')}
  used = {result.recipe for result in _RESULTS}
  lites = {f'efficientnet-lite{number}' for number in range(5)}
  lites |= {f'lite/{name}' for name in lites}
  assert found - used == {'resnet-18', *lites}


# One of each kind, on a tiny network; the rest of the recipe is its own.
@pytest.mark.parametrize(
  'recipe',
  [
    'inception/efficientnet-b0',
    'adversarial/efficientnet-b3',
    'pretrain_finetune/efficientnet-b3',
    'attackers/efficientnet-b3-gd',
    'fine_grained/efficientnet-b0',
    'mixture/resnet-50',
  ],
)
def test_one_of_each_kind_takes_two_steps(recipe, tmp_path, monkeypatch):
  plain = execution.Execution(layers=False, step=False)
  monkeypatch.setattr(execution, 'choose', lambda *_: plain)
  overrides = [
    *('model.name=resnet-18', 'model.width_coefficient=0.125'),
    *('model.depth_coefficient=0.1', 'model.image_size=16'),
    *('data.num_classes=10', 'data.num_train_images=2500'),
    *('train.batch_size=5', 'train.epochs=0.004', 'train.log_steps=2'),
    'train.warmup_epochs=0',  # Its first rates are too small to see.
  ]
  config = config_lib.load_config(_path(recipe), overrides)
  assert config.train_steps == 2
  strategy = tf.distribute.OneDeviceStrategy('CPU:0')
  trainer = trainer_lib.Trainer(config, strategy, str(tmp_path))
  before = [v.numpy() for v in trainer.model.trainable_variables]
  trainer.train()
  assert trainer.step == 2
  after = trainer.model.trainable_variables
  changed = [(x != y.numpy()).any() for x, y in zip(before, after)]
  assert sum(changed) > 0.9 * len(changed)


def test_published_and_measured_stand_side_by_side(tmp_path):
  run = tmp_path / 'strength' / 'efficientnet-b0-epsilon-4'
  (run / 'evals').mkdir(parents=True)
  (run / 'eval.json').write_text(json.dumps({'top_1_accuracy': 0.7654}))
  result = {'top_1_accuracy': 0.5, 'mean_corruption_error': 0.6789}
  (run / 'evals' / 'auxiliary.json').write_text(
    json.dumps({'top_1_accuracy': 0.7212})
  )
  other = tmp_path / 'vanilla' / 'resnet-50' / 'evals'
  other.mkdir(parents=True)
  (other / 'imagenet_c.json').write_text(json.dumps(result))
  text = paper_tables.format_results(_RESULTS, str(tmp_path))
  table = text.split('Table 3')[1].split('Table 4')[0]
  assert ' 77.1 / 76.5 ' in table and ' 73.7 / 72.1 ' in table
  assert ' 79.2 /' in table and '79.2 / 7' not in table
  assert '74.8 / 67.9' in text
  assert text.count('76.5') == 1 + 4  # And wherever that run counts.
