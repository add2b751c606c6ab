import time

import numpy as np

from tools.measuring import rounds


def test_ratios_are_taken_within_a_round():
  seconds = {'plain': np.array([1.0, 4.0]), 'vanilla': np.array([0.5, 2.0])}
  np.testing.assert_array_equal(rounds.ratios(seconds)['vanilla'], [0.5, 0.5])
  text = rounds.table(seconds, seconds)
  assert '0.50-0.50' in text and len(text.splitlines()) == 3
  assert text.splitlines()[0].split()[0] == 'CPU'
  by_wall = rounds.table(
    seconds, {**seconds, 'vanilla': seconds['plain']}, True
  )
  assert by_wall.splitlines()[0].split()[0] == 'wall'
  assert '1.00-1.00' in by_wall.splitlines()[2]


def test_variants_take_turns_and_warm_up():
  order = []

  def step(name, seconds):
    order.append(name)
    time.sleep(seconds)

  steps = {
    'plain': lambda: step('plain', 0.02),
    'vanilla': lambda: step('vanilla', 0.04),
  }
  cpu, wall = rounds.take_turns(steps, 3)
  assert order == ['plain', 'vanilla'] * 5
  assert len(cpu['plain']) == len(wall['plain']) == 3
  assert (wall['vanilla'] >= 0.04).all()
