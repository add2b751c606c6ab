import time

import numpy as np
import pytest

from tools import benchmark_step


def test_ratios_are_taken_within_a_round():
  seconds = {'plain': np.array([1.0, 4.0]), 'vanilla': np.array([0.5, 2.0])}
  np.testing.assert_array_equal(
    benchmark_step.ratios(seconds)['vanilla'], [0.5, 0.5]
  )
  text = benchmark_step.table(seconds, seconds)
  assert '0.50-0.50' in text and len(text.splitlines()) == 3


def test_variants_take_turns_and_warm_up():
  order = []

  def step(name, seconds):
    order.append(name)
    time.sleep(seconds)

  steps = {
    'plain': lambda: step('plain', 0.02),
    'vanilla': lambda: step('vanilla', 0.04),
  }
  cpu, wall = benchmark_step.take_turns(steps, 3)
  assert order == ['plain', 'vanilla'] * 5
  assert len(cpu['plain']) == len(wall['plain']) == 3
  assert (wall['vanilla'] >= 0.04).all()


@pytest.mark.parametrize('steps, method', [(0, 'vanilla'), (5, 'advprop')])
def test_a_run_has_the_attack_steps_of_its_name(steps, method):
  config = benchmark_step.run_config('efficientnet-b0', 64, 8, steps)
  assert config.train.method == method
  if steps:
    assert config.attack.num_steps == steps and config.attack.epsilon == 4


@pytest.mark.parametrize('size, images', [(16, 15), (64, 65), (1, 5)])
def test_fast_advprop_takes_a_multiple_of_five_images(size, images):
  config = benchmark_step.fast_config('efficientnet-b0', 64, size)
  assert config.train.batch_size == images
