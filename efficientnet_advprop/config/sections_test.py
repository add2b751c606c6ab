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


@pytest.mark.parametrize(
  'epsilon, steps', [(0, 1), (1, 1), (2, 3), (3, 4), (4, 5), (6, 7)]
)
def test_attack_steps_follow_the_paper(epsilon, steps):
  attack = config_lib.AttackConfig(epsilon=epsilon)
  assert (attack.num_steps, attack.step_size) == (steps, 1)


@pytest.mark.parametrize(
  'test, message',
  [
    ({'restarts': 2, 'attack': {'name': 'ifgsm'}}, 'ifgsm draws no numbers'),
    ({'attack': {'batch_norm': 'train'}}, r'attack\.batch_norm: .*: eval'),
    ({'cue': 'texture', 'attack': {}}, 'cue: .* as they are'),
  ],
)
def test_a_test_that_cannot_be_is_refused(test, message):
  with pytest.raises(config_lib.ConfigError, match=message):
    config_lib.from_dict({'eval': {'tests': {'a': test}}})


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


def test_an_attack_at_random_targets_may_restart():
  attack = {'name': 'ifgsm', 'target': 'random'}
  values = {'eval': {'tests': {'a': {'attack': attack, 'restarts': 2}}}}
  assert config_lib.from_dict(values).eval.tests['a'].restarts == 2


def test_fgsm_is_one_step_of_epsilon():
  attack = config_lib.AttackConfig(name='fgsm', epsilon=8)
  assert (attack.num_steps, attack.step_size) == (1, 8)
  assert not attack.random_start
  with pytest.raises(config_lib.ConfigError, match='ifgsm'):
    config_lib.AttackConfig(name='fgsm', num_steps=3)


def test_model_defaults_are_the_family_s():
  model = _load('model.name=efficientnet-b7').model
  assert (model.width_coefficient, model.depth_coefficient) == (2.0, 3.1)
  assert (model.image_size, model.dropout_rate) == (600, 0.5)


def test_fine_grained_domains_are_config_entries():
  fine = 'train.method=fine_grained'
  config = _load(fine, 'train.domains.strong.attack.epsilon=8')
  domains = ('augmented', 'adversarial', 'strong')
  assert config.auxiliary_domains == domains and config.two_views
  with pytest.raises(config_lib.ConfigError, match='names other than main'):
    _load(fine, 'train.domains.augmented.view=plain')
  with pytest.raises(config_lib.ConfigError, match='randaugment'):
    _load(fine, 'data.augmentation=none')


def test_resnet_defaults_are_the_family_s():
  model = _load('model.name=resnet-152').model
  assert (model.image_size, model.dropout_rate) == (224, 0)
  assert (model.survival_probability, model.batch_norm_momentum) == (1, 0.9)
  with pytest.raises(config_lib.ConfigError, match='drops nothing'):
    _load('model.name=resnet-152', 'model.survival_probability=0.8')


def test_lite_recipes_are_the_published_ones():
  sizes = [224, 240, 260, 280, 300]
  rates = [0.2, 0.2, 0.3, 0.3, 0.3]
  for number, (size, rate) in enumerate(zip(sizes, rates)):
    name = f'efficientnet-lite{number}'
    folder = _ROOT / 'hparams' / 'imagenet' / 'lite'
    config = config_lib.load_config(str(folder / f'{name}.yaml'))
    model = config.model
    assert (model.name, model.image_size, model.dropout_rate) == (
      name,
      size,
      rate,
    )
    assert (model.survival_probability, model.batch_norm_momentum) == (
      0.8,
      0.99,
    )
    assert model.normalization == 'lite' and config.train.method == 'vanilla'
    assert config_lib.model_config(name, {'normalization': 'advprop'})
  assert _load('model.name=efficientnet-b0').model.normalization == 'advprop'


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


@pytest.mark.parametrize(
  'value, expected',
  [
    ('none', ()),
    (None, ()),
    ([], ()),
    ('float16', ('float16',)),
    (['int8', 'float32'], ('int8', 'float32')),
  ],
)
def test_tflite_takes_none_or_one_or_several_variants(value, expected):
  config = config_lib.from_dict({'export': {'tflite': value}})
  assert config.export.tflite == expected
  again = yaml.safe_load(config_lib.to_yaml(config))
  assert config_lib.from_dict(again) == config


@pytest.mark.parametrize('value', ['int4', ['int8', 'int8'], [8], {'int8': 1}])
def test_other_variants_are_refused(value):
  with pytest.raises(config_lib.ConfigError, match=r'^export\.tflite: .*int8'):
    config_lib.from_dict({'export': {'tflite': value}})


def test_a_removed_key_passes_with_the_value_that_remains():
  """Runs of older versions resume: their config.yaml has the key."""
  _load('attack.clean_start_probability=0')
  with pytest.raises(config_lib.ConfigError, match='clean_start_probability'):
    _load('attack.clean_start_probability=0.2')


def test_null_takes_out_all_tests_and_domains():
  config = config_lib.from_dict(
    {'eval': {'tests': None}, 'train': {'domains': None}}
  )
  assert config.eval.tests == {} and config.train.domains == {}
