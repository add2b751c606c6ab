import numpy as np
import tensorflow as tf

from efficientnet_advprop.base import randomness


def _seeds(count):
  return tf.stack([tf.range(count), tf.range(count) * 7], 1)


def test_an_example_draws_the_same_in_any_batch():
  whole = randomness.uniform(_seeds(6), [4, 3], randomness.DROPOUT)
  part = randomness.uniform(_seeds(6)[3:5], [4, 3], randomness.DROPOUT)
  np.testing.assert_array_equal(whole[3:5], part)


def test_salts_and_seeds_draw_different_numbers():
  first = randomness.uniform(_seeds(8), [50], randomness.CROP).numpy()
  second = randomness.uniform(_seeds(8), [50], randomness.FLIP).numpy()
  every = np.concatenate([first, second])
  correlations = np.corrcoef(every) - np.eye(len(every))
  assert np.abs(correlations).max() < 0.6  # 4.2 sigma of 50 numbers.
  assert len(np.unique(every)) > 0.99 * every.size


def test_numbers_are_uniform():
  numbers = randomness.uniform(_seeds(100), [100], randomness.CROP).numpy()
  counts, _ = np.histogram(numbers, 20, (0, 1))
  chi_square = ((counts - 500) ** 2 / 500).sum()
  assert numbers.min() >= 0 and numbers.max() < 1
  assert chi_square < 43.8  # 99.9% quantile at 19 degrees of freedom.


def test_compiled_and_plain_functions_agree():
  def draw(seeds):
    return randomness.uniform(seeds, [5], randomness.DROPOUT)

  plain = tf.function(draw)(_seeds(3))
  compiled = tf.function(draw, jit_compile=True)(_seeds(3))
  np.testing.assert_array_equal(plain, compiled)


def test_a_salt_may_be_a_tensor():
  for salt in (0, 3, randomness.RESTART + 999):
    np.testing.assert_array_equal(
      randomness.fold(_seeds(4), tf.constant(salt, tf.int64)),
      randomness.fold(_seeds(4), salt),
    )


def test_no_restart_shares_an_attack_s_numbers_with_another():
  salts = (randomness.ATTACK_START, randomness.ATTACK_TARGET)
  restarts = randomness.RESTART + np.arange(1000)
  bits = [
    int(randomness.fold(randomness.fold(tf.constant(0), int(r)), s))
    for r in restarts[::25]
    for s in salts
  ]
  assert len(set(bits)) == len(bits)


def test_one_seed_is_split_into_one_for_each_example():
  seeds = randomness.per_example_seeds(tf.constant([1, 2]), 4).numpy()
  assert seeds.shape == (4, 2)
  assert len({tuple(seed) for seed in seeds}) == 4
  kept = randomness.per_example_seeds(seeds, 4)
  np.testing.assert_array_equal(kept, seeds)
