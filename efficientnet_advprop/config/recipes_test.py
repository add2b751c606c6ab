import pytest

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.config import recipes


def test_recipes_inherit_and_remove(tmp_path):
  (tmp_path / 'base.yaml').write_text(
    'train: {epochs: 5, seed: 1}\n'
    'eval: {tests: {one: {split: a}, two: {split: b}}}\n'
  )
  child = tmp_path / 'child.yaml'
  child.write_text(
    'base: base.yaml\ntrain: {epochs: 1e1}\neval: {tests: {one: null}}\n'
  )
  config = config_lib.load_config(str(child), ['train.seed=2'])
  assert (config.train.epochs, config.train.seed) == (10, 2)
  assert list(config.eval.tests) == ['two']


@pytest.mark.parametrize(
  'text, message',
  [
    ('base: x.yaml', 'not its own base'),
    ('train: [', 'valid YAML'),
    ('- 1', 'mapping of sections'),
    ('train: 3', 'mapping of keys'),
  ],
)
def test_a_broken_recipe_is_named_in_one_line(tmp_path, text, message):
  path = tmp_path / 'x.yaml'
  path.write_text(text)
  with pytest.raises(config_lib.ConfigError, match=message) as caught:
    config_lib.load_config(str(path))
  assert '\n' not in str(caught.value)


def test_a_missing_recipe_is_named():
  with pytest.raises(config_lib.ConfigError, match='no such file'):
    recipes.read_yaml('nowhere.yaml')


def test_a_merge_leaves_its_base_alone():
  base = {'train': {'seed': 1, 'epochs': 2}}
  merged = recipes.merge(base, {'train': {'seed': 3}, 'eval': {'tests': None}})
  assert merged == {'train': {'seed': 3, 'epochs': 2}, 'eval': {'tests': None}}
  assert base == {'train': {'seed': 1, 'epochs': 2}}


def test_overrides_may_hold_lists():
  parsed = recipes.parse_overrides('a.b=[1,2], c.d=x')
  assert parsed == ('a.b=[1,2]', 'c.d=x')


@pytest.mark.parametrize('text', ['seed=1', 'train.seed', 'train.seed=[1'])
def test_a_wrong_override_is_named(text):
  with pytest.raises(config_lib.ConfigError, match='allowed: '):
    recipes.apply_overrides({}, [text])
