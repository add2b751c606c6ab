import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import pretrained
from efficientnet_advprop.testing import tiny_runs
from efficientnet_advprop.training import averaging


def _model(domains=('adversarial',)):
  return pretrained.build_model(
    'efficientnet-b0',
    10,
    domains,
    **tiny_runs.EFFICIENTNET,
  )


@pytest.mark.parametrize(
  'update, decay', [(0, 2 / 11), (1, 3 / 12), (989, 0.991), (10**6, 0.9999)]
)
def test_the_average_follows_quickly_at_first(update, decay):
  """As the official code, which reads the step after the update."""
  number = tf.constant(update) + averaging.FIRST_UPDATE
  assert float(averaging.decay(number, 0.9999)) == pytest.approx(decay, 1e-5)


@pytest.mark.parametrize('replicas', [1, 2])
def test_the_average_covers_weights_and_all_statistics(two_replicas, replicas):
  one_device = tf.distribute.OneDeviceStrategy('CPU:0')
  strategy = two_replicas if replicas == 2 else one_device
  with strategy.scope():
    model, average = _model(), _model()
  rng = np.random.default_rng(0)
  expected = []
  for shadow, variable in zip(average.variables, model.variables):
    old, new = (rng.normal(size=variable.shape) for _ in range(2))
    shadow.assign(old)
    variable.assign(new)
    expected.append(0.75 * old + 0.25 * new)

  @tf.function
  def update():
    strategy.run(lambda: averaging.update(average, model, tf.constant(0.75)))

  update()
  assert len(expected) == len(model.variables)
  for shadow, value in zip(average.variables, expected):
    np.testing.assert_allclose(shadow.numpy(), value, rtol=1e-5, atol=1e-6)
