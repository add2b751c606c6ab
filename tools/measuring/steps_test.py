import pytest
import tensorflow as tf

from tools.measuring import steps as steps_lib


@pytest.mark.parametrize('steps, method', [(0, 'vanilla'), (5, 'advprop')])
def test_a_run_has_the_attack_steps_of_its_name(steps, method):
  config = steps_lib.run_config('efficientnet-b0', 64, 8, steps)
  assert config.train.method == method
  if steps:
    assert config.attack.num_steps == steps and config.attack.epsilon == 4


@pytest.mark.parametrize('size, images', [(16, 15), (64, 65), (1, 5)])
def test_fast_advprop_takes_a_multiple_of_five_images(size, images):
  config = steps_lib.fast_config('efficientnet-b0', 64, size)
  assert config.train.batch_size == images


@pytest.mark.parametrize('gpus, peak', [([], 7), (['GPU:0'], 3)])
def test_the_peak_is_of_the_device_that_computes(monkeypatch, gpus, peak):
  monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind: gpus)
  monkeypatch.setattr(
    tf.config.experimental, 'get_memory_info', lambda name: {'peak': 3 * 1024}
  )
  monkeypatch.setattr(steps_lib.rounds_lib, 'held_memory', lambda key: 7)
  assert steps_lib._peak_memory() == peak
