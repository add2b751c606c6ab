import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.layers import convolution
from efficientnet_advprop.layers import recomputation

_RNG = np.random.default_rng(0)
_X = tf.constant(_RNG.normal(size=(4, 9, 9, 6)), tf.float32)


@pytest.mark.parametrize('replicas', [1, 2])
def test_what_is_recomputed_equals_what_is_stored(two_replicas, replicas):
  """Outputs, gradients, and statistics that move once."""
  one_device = tf.distribute.OneDeviceStrategy('CPU:0')
  strategy = two_replicas if replicas == 2 else one_device
  runs = []
  for call in (recomputation.stored, recomputation.recomputed):
    tf.keras.utils.set_random_seed(0)
    with strategy.scope():
      layer = convolution.NormalizedConv2D(
        5,
        3,
        activation='swish',
        auxiliary_domains=('adversarial',),
        synchronized=True,
      )
      layer.build(tf.TensorShape([None, None, None, 6]))

    def step(x, layer=layer, call=call):
      with tf.GradientTape() as tape:
        tape.watch(x)
        y = call(layer, x, training=True, domain='adversarial')
        loss = tf.reduce_sum(y * tf.sin(y + tf.range(5.0)))
      norm = layer.norm.norm_of('adversarial')
      sources = [x, layer.kernel, norm.gamma, norm.beta]
      return [y, *tape.gradient(loss, sources)]

    results = strategy.run(tf.function(step), args=(_X,))
    results = [strategy.experimental_local_results(r)[0] for r in results]
    runs.append([*results, *layer.non_trainable_variables])
  stored, recomputed = runs
  assert np.abs(stored[-2]).max() > 0  # The auxiliary mean has moved.
  for ours, theirs in zip(recomputed, stored):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
