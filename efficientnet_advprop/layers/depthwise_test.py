import pytest
import tensorflow as tf

from efficientnet_advprop.layers import depthwise
from efficientnet_advprop.testing import functions


@pytest.mark.parametrize(
  'size, strides, height, width',
  [(3, 1, 4, 4), (3, 2, 9, 7), (5, 2, 9, 8)]
  + [(5, 1, *shape) for shape in ((1, 1), (2, 2), (4, 3), (9, 7))]
  + [(5, 2, *shape) for shape in ((1, 1), (2, 2), (4, 3), (33, 2))]
  + [(3, 1, *shape) for shape in ((1, 1), (2, 2), (1, 5))],
)
def test_outputs_and_gradients_equal_tensorflow_s(size, strides, height, width):
  functions.assert_equal(
    lambda x, k: depthwise.convolution(x, k, strides),
    lambda x, k: tf.nn.depthwise_conv2d(x, k, [1, strides, strides, 1], 'SAME'),
    functions.random(3, height, width, 6),
    functions.random(size, size, 6, 1),
  )
