import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.training import distribution


@pytest.mark.parametrize(
  'name, replicas', [('auto', 1), ('one_device', 1), ('mirrored', 2)]
)
def test_the_strategy_has_the_machine_s_replicas(name, replicas):
  strategy = distribution.create_strategy(name)
  assert strategy.num_replicas_in_sync == replicas
  assert distribution.compiles_layers(strategy) == (replicas == 1)


@pytest.mark.parametrize('tpu', ['local', '', None])
def test_a_missing_tpu_is_said_in_one_line(tpu):
  with pytest.raises(config_lib.ConfigError, match=r'^tpu: got ') as caught:
    distribution.create_strategy('tpu', tpu)
  assert '\n' not in str(caught.value)


def test_an_unknown_strategy_is_told_the_known_ones():
  with pytest.raises(config_lib.ConfigError, match='did you mean mirrored'):
    distribution.create_strategy('miror')


def test_several_workers_come_from_the_environment(monkeypatch):
  monkeypatch.delenv('TF_CONFIG', raising=False)
  strategy = distribution.create_strategy('multi_worker')
  assert isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
