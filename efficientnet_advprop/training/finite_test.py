import math

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.base import errors
from efficientnet_advprop.testing import whole_runs
from efficientnet_advprop.training import finite
from efficientnet_advprop.training import host_loop
from efficientnet_advprop.weights import checkpoints


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


@pytest.mark.once
@pytest.mark.usefixtures('plain_layers')
def test_losses_that_are_not_finite_stop_the_run(tmp_path):
  """The first update breaks the weights, the second step's losses tell."""
  config = whole_runs.config('train.learning_rate=1e30', 'train.weight_decay=0')
  cause = whole_runs.cause(whole_runs.start(tmp_path, config))
  assert cause.startswith('step 2: clean_loss and adversarial_loss not finite')
  assert 'learning rate 6.25e+28' in cause and 'no checkpoint yet' in cause
  assert not checkpoints.checkpoint_paths(str(tmp_path / 'checkpoints'))


@pytest.mark.once
def test_weights_that_are_not_finite_are_not_saved(
  whole, monkeypatch, tmp_path
):
  """Step 4's update breaks them: its own losses do not know yet."""
  trainer, model_dir, _ = whole
  whole_runs.cut(model_dir, tmp_path, 2)
  broken = whole_runs.start(tmp_path)
  run = host_loop.HostLoop.run

  def spoil(loop, batches, start, end, saved):
    result = run(loop, batches, start, end, saved)
    if end == 4:
      kernel = broken.model.stem.kernel
      kernel.assign(kernel * float('inf'))
    return result

  with monkeypatch.context() as patch:
    patch.setattr(host_loop.HostLoop, 'run', spoil)
    cause = whole_runs.cause(broken)
  assert cause.startswith('step 4: its update has left weights')
  assert 'stem' in cause and 'the checkpoint of step 2 is intact' in cause
  again = whole_runs.start(tmp_path)
  assert again.step == 2
  again.train()
  whole_runs.assert_same(whole_runs.state(again), whole_runs.state(trainer))
