import math

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.base import errors
from efficientnet_advprop.training import finite


def _sums(values, skipped=None, scales=None):
  """As the host loop has it: over the steps' losses, inside a tf.function."""

  @tf.function
  def loop(values):
    sums = finite.no_sums(2)
    for index in tf.range(tf.shape(values)[0]):
      scaling = () if skipped is None else (skipped, scales)
      scaling = [tf.constant(each)[index] for each in scaling]
      sums = finite.with_step(sums, values[index], index, *scaling)
    return sums

  return loop(tf.constant(values, tf.float32))


def test_the_first_bad_step_is_remembered():
  nan, inf = math.nan, math.inf
  sums = _sums([[1, 2], [3, inf], [nan, nan]])
  assert int(sums.found) == 1
  np.testing.assert_array_equal(sums.bad, [3, inf])
  sums = _sums([[1, 2], [3, 5]])
  assert int(sums.found) == -1
  assert finite.means(sums) == [2.0, 3.5]


def test_steps_that_float16_skips_are_counted_and_left_out_of_means():
  """The gradients of the second step overflow, and the loss of the third."""
  values = [[1, 2], [3, 5], [math.inf, 0]]
  sums = _sums(values, [0.0, 1.0, 1.0], [8.0, 8.0, 4.0])
  assert int(sums.found) == -1 and float(sums.skipped) == 2
  assert finite.means(sums) == [2.0, 3.5]
  sums = _sums(values, [0.0, 1.0, 1.0], [2.0, 2.0, 1.0])
  assert int(sums.found) == 2
  assert math.isnan(finite.means(_sums(values[2:], [1.0], [8.0]))[0])
  line = str(finite.error(3, {'loss': math.inf}, 0.1, 0, is_scaled=True))
  assert 'gradients of the loss without a scale not finite' in line
  assert 'train.precision=mixed_bfloat16' in line


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
