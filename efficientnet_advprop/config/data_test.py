import pytest

from efficientnet_advprop import config as config_lib


@pytest.mark.parametrize(
  'changes, allowed',
  [
    ({'cache': ''}, 'none, memory, or a local folder'),
    ({'cache': 'gs://bucket/cache'}, 'none, memory, or a local folder'),
    ({'cache_short_side': 256}, 'none, or with data.cache'),
  ],
)
def test_a_cache_that_makes_no_sense_is_refused(changes, allowed):
  with pytest.raises(config_lib.ConfigError) as caught:
    config_lib.DataConfig(**changes)
  assert str(caught.value).endswith(f'allowed: {allowed}')


def test_a_removed_key_passes_with_the_value_that_remains():
  """Runs of older versions resume: their config.yaml has the key."""
  config_lib.from_dict({'data': {'flip': True}})
  with pytest.raises(config_lib.ConfigError, match=r'^data\.flip: got False'):
    config_lib.from_dict({'data': {'flip': False}})
