import pytest

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.config import recipes


def _load(*overrides):
  return config_lib.from_dict(recipes.apply_overrides({}, overrides))


def test_fine_grained_domains_are_config_entries():
  fine = 'train.method=fine_grained'
  config = _load(fine, 'train.domains.strong.attack.epsilon=8')
  domains = ('augmented', 'adversarial', 'strong')
  assert config.auxiliary_domains == domains and config.two_views
  with pytest.raises(config_lib.ConfigError, match='names other than main'):
    _load(fine, 'train.domains.augmented.view=plain')
  with pytest.raises(config_lib.ConfigError, match='randaugment'):
    _load(fine, 'data.augmentation=none')
