import pytest

from efficientnet_advprop import config as config_lib


def _fine_grained(domains, **data):
  train = {'method': 'fine_grained', 'domains': domains}
  return config_lib.from_dict({'train': train, 'data': data})


def test_fine_grained_domains_are_config_entries():
  config = _fine_grained({'strong': {'attack': {'epsilon': 8}}})
  domains = ('augmented', 'adversarial', 'strong')
  assert config.auxiliary_domains == domains and config.two_views
  with pytest.raises(config_lib.ConfigError, match='names other than main'):
    _fine_grained({'augmented': {'view': 'plain'}})
  with pytest.raises(config_lib.ConfigError, match='randaugment'):
    _fine_grained({}, augmentation='none')
