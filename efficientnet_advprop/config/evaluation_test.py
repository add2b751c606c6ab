import pytest
import yaml

from efficientnet_advprop import config as config_lib


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


def test_an_attack_at_random_targets_may_restart():
  attack = {'name': 'ifgsm', 'target': 'random'}
  values = {'eval': {'tests': {'a': {'attack': attack, 'restarts': 2}}}}
  assert config_lib.from_dict(values).eval.tests['a'].restarts == 2


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
