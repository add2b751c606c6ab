import math

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.base import errors
from efficientnet_advprop.training import finite


def _first_bad(values):
  """As the host loop has it: over the steps' losses, inside a tf.function."""

  @tf.function
  def loop(values):
    found, bad = tf.constant(-1), tf.zeros([2])
    for index in tf.range(tf.shape(values)[0]):
      found, bad = finite.first_bad(values[index], index, found, bad)
    return found, bad

  found, bad = loop(tf.constant(values, tf.float32))
  return int(found), bad.numpy()


def test_the_first_bad_step_is_remembered():
  nan, inf = math.nan, math.inf
  found, bad = _first_bad([[1, 2], [3, inf], [nan, nan]])
  assert found == 1
  np.testing.assert_array_equal(bad, [3, inf])
  assert _first_bad([[1, 2], [3, 4]])[0] == -1


@pytest.mark.parametrize(
  'losses, cause',
  [
    (dict(loss=math.nan, a_loss=1.5, b_loss=math.nan), 'b_loss not finite'),
    (dict(loss=math.inf, a_loss=1.5, b_loss=2.5), 'the weight penalty not fin'),
  ],
)
def test_the_cause_is_named(losses, cause):
  line = str(finite.error(7, losses, 0.25, 0))
  assert line.startswith(f'step 7: {cause}')
  for word in ('a_loss 1.5', 'learning rate 0.25', 'no checkpoint yet'):
    assert word in line


def test_broken_weights_are_counted_and_the_first_is_named():
  weights = [
    tf.Variable(value, name=name)
    for name, value in (('a', 1.0), ('b', math.nan), ('c', [1.0, -math.inf]))
  ]
  finite.check_weights(weights[:1], 4, 2)
  with pytest.raises(errors.TrainingError) as caught:
    finite.check_weights(weights, 4, 2)
  expected = 'weights that are not finite (b:0 and 1 more); the checkpoint of'
  assert expected in str(caught.value)
