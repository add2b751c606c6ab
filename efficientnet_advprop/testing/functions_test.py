import pytest
import tensorflow as tf

from efficientnet_advprop.testing import functions


@tf.custom_gradient
def _square_of_half_the_slope(x):
  return x**2, lambda gradient: gradient * x


def test_equal_functions_pass():
  x = functions.random(3, 4)
  functions.assert_equal(lambda x: x * x, tf.square, x)


@pytest.mark.parametrize(
  'other',
  [
    lambda x: 1.0001 * x**2,
    _square_of_half_the_slope,
    lambda x: tf.cast(x**2, tf.float16),
  ],
  ids=['value', 'gradient', 'type'],
)
def test_another_value_gradient_or_type_fails(other):
  x = functions.random(3, 4)
  with pytest.raises(AssertionError):
    functions.assert_equal(tf.square, other, x)
