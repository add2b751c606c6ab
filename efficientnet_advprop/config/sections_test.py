import dataclasses
import glob
from pathlib import Path
import re

import pytest
import yaml

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.config import recipes

_ROOT = Path(__file__).parents[2]


def _load(*overrides):
  return config_lib.from_dict(recipes.apply_overrides({}, overrides))


@pytest.mark.parametrize(
  'override, message',
  [
    ('train.epoch=3', r'^train\.epoch: got 3; .*did you mean epochs\?'),
    ('atack.epsilon=2', r'^atack: got .*did you mean attack\?'),
    ('train.epochs=-1', r'^train\.epochs: got -1; .* above 0$'),
    ('train.epochs=.nan', r'^train\.epochs: got nan; '),
    ('train.batch_size=2.5', r'^train\.batch_size: got 2\.5; .*whole'),
    ('train.batch_size=true', r'^train\.batch_size: got True; '),
    ('attack.epsilon=big', r"^attack\.epsilon: got 'big'; .* 0 to 255$"),
    ('attack.name=pdg', r'^attack\.name: .*did you mean pgd\?'),
    ('train.rematerialize=1', r'^train\.rematerialize: .*: true or false$'),
    ('model.name=efficientnet-b9', r'^model\.name: .*efficientnet-b8'),
    ('eval.tests.a.domain=adv', r'^eval\.tests\.a\.domain: .*adversarial'),
    ('eval.tests.a.attack.epsilon=-1', r'^eval\.tests\.a\.attack\.eps'),
    ('eval.tests.a.kind=imagenet_a', r'^eval\.tests\.a\.dir: got None; '),
    ('eval.tests.a.kind=imagenet_b', r'^eval\.tests\.a\.kind: .*imagenet_c'),
    ('eval.tests.a.num_images=0', r'^eval\.tests\.a\.num_images: got 0; '),
    ('eval.tests.a.restarts=2', r'^eval\.tests\.a\.restarts: .* no attack$'),
    ('eval.tests.a.restarts=0', r'^eval\.tests\.a\.restarts: .*1 to 1000$'),
    ('data.num_train_images=9', r'^train\.batch_size: got 4096; .*9$'),
    ('train.epochs=null', r'^train\.epochs: got None; '),
    ('train=3', r'^params_override: '),
    ('train.domains.a.view=plain', r"^train\.domains: got 'a'; .*fine_grained"),
    ('train.domains.a.view=x', r'^train\.domains\.a\.view: .*plain'),
    ('train.epochs=[', r'^train\.epochs: '),
  ],
)
def test_a_wrong_value_is_named_in_one_line(override, message):
  with pytest.raises(config_lib.ConfigError, match=message) as caught:
    _load(override)
  assert '\n' not in str(caught.value)


def test_yaml_round_trip_repeats_the_run(tmp_path):
  config = _load(
    'attack.epsilon=3', 'eval.tests.a.attack.name=gd', 'model.image_size=64'
  )
  path = tmp_path / 'config.yaml'
  path.write_text(config_lib.to_yaml(config))
  assert config_lib.load_config(str(path)) == config


def test_training_attacks_at_random_and_tests_away_from_the_label():
  fine = ['train.method=fine_grained', 'train.domains.strong.attack.epsilon=8']
  config = _load(*fine, 'eval.tests.a.attack.epsilon=2')
  assert config.attack.target == 'random'
  assert config.train.domains['strong'].attack.target == 'random'
  assert config.eval.tests['a'].attack.target == 'label'
  saved = yaml.safe_load(config_lib.to_yaml(config))
  assert saved['attack']['target'] == 'random'
  assert saved['train']['domains']['strong']['attack']['target'] == 'random'
  assert saved['eval']['tests']['a']['attack']['target'] == 'label'
  assert config_lib.from_dict(saved) == config


def _recipes():
  """The recipes: neither the paper's numbers nor suites."""
  found = set((_ROOT / 'hparams').rglob('*.yaml'))
  found -= {_ROOT / 'hparams' / 'paper.yaml'}
  found -= set((_ROOT / 'hparams' / 'suites').iterdir())
  return sorted(map(str, found))


def test_every_recipe_loads_and_says_what_to_expect():
  assert len(_recipes()) >= 10
  for path in _recipes():
    config_lib.load_config(path)
    with open(path, encoding='utf-8') as file:
      header = file.read().split('\n\n')[0]
    for word in ('python main.py', 'Cost:'):
      assert word in header, f'{path} has no {word!r} in its header'


def test_every_model_s_recipe_has_imagenet_s_numbers():
  """A folder of photographs is told from ImageNet by them."""
  for name in config_lib.MODEL_NAMES:
    path = str(_ROOT / 'hparams' / 'imagenet' / f'{name}.yaml')
    data = config_lib.load_config(path).data
    assert (data.num_classes, data.num_train_images) == (1000, 1_281_167), name


def test_every_model_has_a_recipe():
  for name in config_lib.MODEL_NAMES:
    path = str(_ROOT / 'hparams' / 'imagenet' / f'{name}.yaml')
    assert config_lib.load_config(path).model.name == name


def test_every_field_is_read_somewhere():
  sources = ''
  pattern = str(_ROOT / 'efficientnet_advprop' / '**' / '*.py')
  for path in glob.glob(pattern, recursive=True):
    if not path.endswith('_test.py'):
      with open(path, encoding='utf-8') as file:
        sources += file.read()
  sections = [
    type(getattr(config_lib.Config(), field.name))
    for field in dataclasses.fields(config_lib.Config)
  ]
  others = config_lib.NamedTestConfig, config_lib.DomainConfig
  for section in (*sections, *others):
    for field in dataclasses.fields(section):
      assert re.search(rf'\.{field.name}\b', sources), (section, field.name)


def test_null_takes_out_all_tests_and_domains():
  config = config_lib.from_dict(
    {'eval': {'tests': None}, 'train': {'domains': None}}
  )
  assert config.eval.tests == {} and config.train.domains == {}
