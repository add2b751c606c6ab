import pytest

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
