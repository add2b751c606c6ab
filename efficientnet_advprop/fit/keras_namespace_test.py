import pytest

from efficientnet_advprop.testing import tiny_keras


def test_several_inputs_or_outputs_are_refused(keras):
  first, second = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
  x = keras.layers.BatchNormalization()(first)
  both = keras.layers.Add()([x, second])
  for network in (
    keras.Model([first, second], both),
    keras.Model(first, [x, keras.layers.ReLU()(x)]),
  ):
    with pytest.raises(ValueError, match='allowed: one input and one output'):
      tiny_keras.compiled(keras, network)
