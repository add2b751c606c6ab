import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.base import variables


@pytest.mark.parametrize('compiled', [False, True])
@pytest.mark.parametrize('rate', [0.25, tf.constant(0.25)])
def test_a_variable_moves_to_the_bits_of_its_own_methods(compiled, rate):
  start, target = np.float32([1.1, -3.3]), tf.constant([0.7, 5.9])
  variable, other = tf.Variable(start), tf.Variable(start)

  def moves():
    for _ in range(2):  # The second one reads what the first one wrote.
      variables.move(variable, target, rate)
      other.assign_sub((other - target) * rate)
    return variables.read(variable)

  moved = tf.function(moves)() if compiled else moves()
  np.testing.assert_array_equal(moved, other.numpy())
  np.testing.assert_array_equal(variable.numpy(), other.numpy())
  assert np.abs(moved - start).max() > 3
