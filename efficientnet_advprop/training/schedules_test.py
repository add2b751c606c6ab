import math

import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.training import schedules


def test_the_schedule_is_the_official_one():
  data = config_lib.DataConfig(num_train_images=1_281_167)
  schedule = schedules.learning_rate(config_lib.Config(data=data))
  epoch = 1_281_167 / 4096
  at = lambda epochs: float(schedule(tf.constant(int(epochs * epoch))))
  assert at(0) == 0
  step = int(2.5 * epoch)
  assert at(2.5) == pytest.approx(0.256 * step / int(5 * epoch), rel=1e-6)
  # The first value after the warm-up is decayed twice already.
  assert at(5.01) == pytest.approx(0.256 * 0.97**2, rel=1e-6)
  assert at(7.19) == pytest.approx(0.256 * 0.97**2, rel=1e-6)
  assert at(7.21) == pytest.approx(0.256 * 0.97**3, rel=1e-6)
  assert at(349.9) == pytest.approx(0.256 * 0.97**145, rel=1e-5)


def test_a_run_without_warm_up_starts_at_the_peak():
  values = {
    'data': {'num_train_images': 1_281_167},
    'train': {'warmup_epochs': 0, 'batch_size': 256},
  }
  schedule = schedules.learning_rate(config_lib.from_dict(values))
  assert float(schedule(tf.constant(0))) == pytest.approx(0.016)


def _short(**train):
  values = dict(batch_size=256, learning_rate=0.1, epochs=100, **train)
  return config_lib.from_dict(
    {'data': {'num_train_images': 2560}, 'train': values}
  )


def test_stairs_may_begin_at_stated_epochs():
  config = _short(warmup_epochs=0, decay_at=[25, 50, 75.5], decay_factor=0.1)
  schedule = schedules.learning_rate(config)
  rates = {0: 0.1, 249: 0.1, 250: 0.01, 500: 1e-3, 754: 1e-3, 755: 1e-4}
  for step, rate in rates.items():
    assert float(schedule(tf.constant(step))) == pytest.approx(rate), step


@pytest.mark.parametrize('warmup', [0, 10])
def test_the_cosine_rises_from_zero_and_ends_there(warmup):
  config = _short(schedule='cosine', warmup_epochs=warmup)
  schedule = schedules.learning_rate(config)
  for step in (0, 50, 99, 100, 101, 400, 999, 1000):
    expected = 0.1 * step / 100
    if step >= 10 * warmup:
      done = (step - 10 * warmup) / (1000 - 10 * warmup)
      expected = 0.1 * (1 + math.cos(math.pi * done)) / 2
    found = float(schedule(tf.constant(step)))
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-8), step
