import numpy as np
import tensorflow as tf

from efficientnet_advprop.layers import excitation

_RNG = np.random.default_rng(0)
_X = tf.constant(_RNG.normal(size=(4, 9, 9, 6)), tf.float32)


def test_squeeze_excitation_follows_its_formula():
  layer = excitation.SqueezeExcitation(3)
  outputs = layer(_X)
  means = _X.numpy().mean((1, 2))
  reduce, reduce_bias, expand, expand_bias = (w.numpy() for w in layer.weights)
  hidden = means @ reduce[0, 0] + reduce_bias
  hidden = hidden / (1 + np.exp(-hidden))
  gates = 1 / (1 + np.exp(-(hidden @ expand[0, 0] + expand_bias)))
  expected = _X.numpy() * gates[:, None, None]
  np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
