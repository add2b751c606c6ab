import os

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import execution
from efficientnet_advprop.testing import tiny_runs
from efficientnet_advprop.training import trainer as trainer_lib

_CPU = tf.distribute.OneDeviceStrategy('CPU:0')
_GPU = tf.distribute.OneDeviceStrategy('GPU:0')  # Needs none until it runs.


class _Gpu:
  """Stands for a physical device, of which there is none here."""


@pytest.fixture(name='grown')
def _grown(monkeypatch):
  """The devices whose memory was made to grow; no variable is set before."""
  grown = []
  for name in (execution._ALLOCATOR, execution._GROWTH):
    monkeypatch.setenv(name, '')  # So that it is as it was after the test.
    monkeypatch.delenv(name)
  monkeypatch.setattr(
    tf.config.experimental,
    'set_memory_growth',
    lambda gpu, grows: grown.append(gpu) if grows else None,
  )
  return grown


def test_layers_are_compiled_on_one_cpu_only(two_replicas):
  assert execution.choose(_CPU) == (True, False)
  assert execution.choose(_GPU) == (False, False)
  assert execution.choose(two_replicas) == (False, False)


def test_the_setting_overrides_the_choice(two_replicas):
  assert execution.choose(_CPU, 'none') == (False, False)
  assert execution.choose(_CPU, 'step') == (False, True)
  assert execution.choose(_GPU, 'layers') == (True, False)
  assert execution.choose(_GPU, 'step') == (False, True)
  assert execution.choose(two_replicas, 'none') == (False, False)


@pytest.mark.parametrize('setting', ['layers', 'step'])
def test_replicas_cannot_be_compiled(two_replicas, setting):
  with pytest.raises(config_lib.ConfigError, match=r'compile.*none on several'):
    execution.choose(two_replicas, setting)


def test_an_evaluation_is_compiled_where_its_network_was_not_refused():
  assert execution.for_evaluation(_CPU, 'step').layers
  assert execution.for_evaluation(_CPU, None).layers
  assert not execution.for_evaluation(_CPU, 'none').layers


def test_the_memory_of_gpus_grows(grown):
  gpus = [_Gpu(), _Gpu()]
  execution.prepare_gpus(gpus)
  assert grown == gpus
  assert execution._ALLOCATOR not in os.environ  # Not tried with NCCL.
  execution.prepare_gpus(gpus[:1])
  assert os.environ[execution._ALLOCATOR] == 'cuda_malloc_async'


def test_the_user_s_variables_win(grown, monkeypatch):
  monkeypatch.setenv(execution._GROWTH, 'false')
  monkeypatch.setenv(execution._ALLOCATOR, 'cuda_malloc')
  execution.prepare_gpus([_Gpu()])
  assert grown == []
  assert os.environ[execution._ALLOCATOR] == 'cuda_malloc'


def test_nothing_is_set_without_a_gpu(grown):
  execution.prepare_gpus([])
  assert grown == [] and execution._ALLOCATOR not in os.environ


def test_the_line_says_how_a_run_executes(grown, monkeypatch, two_replicas):
  del grown
  line = execution.describe(_CPU, execution.choose(_CPU))
  assert line.startswith('CPU ') and 'fused layers compiled by XLA' in line
  line = execution.describe(two_replicas, execution.choose(two_replicas))
  assert line.startswith('2 x CPU ') and 'no compilation by XLA' in line
  monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind: [kind])
  monkeypatch.setattr(
    tf.config.experimental,
    'get_device_details',
    lambda gpu: {'device_name': f'NVIDIA {gpu}'},
  )
  line = execution.describe(_GPU, execution.choose(_GPU, 'step'))
  assert line == (
    'NVIDIA GPU: the whole step compiled by XLA, memory grows as needed,'
    ' allocator BFC'
  )


def _weights(tmp_path, compiled):
  """Weights and statistics of a small network after two steps of AdvProp."""
  values = {
    'model': {**tiny_runs.EFFICIENTNET, 'name': 'efficientnet-b0'},
    'data': {'num_classes': 10, 'num_train_images': 2500},
    'train': {
      'batch_size': 8,
      'epochs': 0.0064,
      'warmup_epochs': 0,
      'optimizer': 'sgd',
      'compile': compiled,
    },
  }
  config = config_lib.from_dict(values)
  assert config.train_steps == 2
  trainer = trainer_lib.Trainer(config, _CPU, str(tmp_path / compiled))
  trainer.train()
  return [variable.numpy() for variable in trainer.model.variables]


@pytest.mark.slow  # XLA takes a minute for the whole step.
def test_what_is_compiled_changes_rounding_alone(tmp_path):
  """`layers` and `step` end two steps where the plain path does."""
  plain = _weights(tmp_path, 'none')
  for compiled in ('layers', 'step'):
    for expected, actual in zip(plain, _weights(tmp_path, compiled)):
      np.testing.assert_allclose(actual, expected, rtol=2e-4, atol=2e-4)


def test_graphs_are_optimized_again_after_training():
  def is_off():
    options = tf.config.optimizer.get_experimental_options()
    return options.get('disable_meta_optimizer', False)

  with pytest.raises(KeyError), execution.graphs_as_traced():
    assert is_off()
    raise KeyError
  assert not is_off()


@pytest.mark.parametrize(
  'gpus, wanted, expected',
  [
    ([], None, True),
    (['GPU'], None, False),
    (['GPU'], True, True),
    ([], False, False),
  ],
)
def test_determinism_follows_the_device_unless_it_is_chosen(
  monkeypatch, gpus, wanted, expected
):
  calls = []
  monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind: gpus)
  enable = 'enable_op_determinism'
  monkeypatch.setattr(tf.config.experimental, enable, lambda: calls.append(1))
  assert execution.set_determinism(wanted) is expected
  assert bool(calls) is expected
