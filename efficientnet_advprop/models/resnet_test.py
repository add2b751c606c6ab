import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config
from efficientnet_advprop import pretrained
from efficientnet_advprop.layers import normalization

# At 1000 classes, without auxiliary norms; torchvision's (200: timm's).
_PARAMETERS = {
  'resnet-18': 11_689_512,
  'resnet-50': 25_557_032,
  'resnet-101': 44_549_160,
  'resnet-152': 60_192_808,
  'resnet-200': 64_673_832,
}


def test_every_resnet_has_its_count():
  names = {name for name in config.MODEL_NAMES if 'resnet' in name}
  assert names == set(_PARAMETERS)


@pytest.mark.once
@pytest.mark.parametrize('name', sorted(_PARAMETERS))
def test_parameter_counts_are_the_published_ones(name):
  model = pretrained.build_model(name, 1000, ())
  count = sum(v.shape.num_elements() for v in model.trainable_variables)
  assert count == _PARAMETERS[name]


def _reference(stages, is_small):
  """The same network from Keras's own layers, and its layers with weights."""
  used = []

  def add(x, layer):
    used.append(layer)
    return layer(x)

  def convolution(x, filters, size, strides):
    if strides > 1:  # All sides are padded equally.
      x = tf.keras.layers.ZeroPadding2D((size - 1) // 2)(x)
    padding = 'same' if strides == 1 else 'valid'
    x = add(
      x,
      tf.keras.layers.Conv2D(filters, size, strides, padding, use_bias=False),
    )
    return add(x, tf.keras.layers.BatchNormalization(epsilon=1e-5))

  relu = tf.keras.layers.ReLU()
  inputs = tf.keras.Input([64, 64, 3])
  if is_small:
    x = relu(convolution(inputs, 16, 3, 1))
  else:
    x = relu(convolution(inputs, 16, 7, 2))
    x = tf.keras.layers.ZeroPadding2D(1)(x)
    x = tf.keras.layers.MaxPool2D(3, 2)(x)
  for stage, repeats in enumerate(stages):
    filters = 16 * 2**stage
    for repeat in range(repeats):
      strides = 2 if stage > 0 and repeat == 0 else 1
      if is_small:  # Basic blocks, else bottlenecks.
        width = filters
        y = relu(convolution(x, filters, 3, strides))
        y = convolution(y, filters, 3, 1)
      else:
        width = 4 * filters
        y = relu(convolution(x, filters, 1, 1))
        y = relu(convolution(y, filters, 3, strides))
        y = convolution(y, width, 1, 1)
      if strides != 1 or x.shape[-1] != width:
        x = convolution(x, width, 1, strides)
      x = relu(x + y)
  x = tf.keras.layers.GlobalAveragePooling2D()(x)
  return tf.keras.Model(inputs, add(x, tf.keras.layers.Dense(7))), used


def _groups(model):
  """Variables by the layers that own them, in the order of the reference."""
  groups = []
  parts = [model.stem]
  for block in model.blocks:
    parts += [*block.branch, block.shortcut]
  for part in parts:
    if part is not None:
      norm = part.norm
      statistics = [norm.moving_mean, norm.moving_variance]
      groups += [[part.kernel], [norm.gamma, norm.beta, *statistics]]
  return [*groups, model.classifier.variables]


@pytest.mark.parametrize('is_small', [False, True])
def test_the_forward_pass_equals_one_of_keras_layers(is_small):
  model = pretrained.build_model(
    'resnet-18' if is_small else 'resnet-50',
    7,
    width_coefficient=0.25,
    depth_coefficient=0.5,
    image_size=64,
    stem_stride=1 if is_small else 2,
  )
  reference, sources = _reference(
    (1, 1, 1, 1) if is_small else (2, 2, 3, 2), is_small
  )
  rng = np.random.default_rng(0)
  targets = _groups(model)
  assert len(sources) == len(targets)
  for layer, group in zip(sources, targets):
    if isinstance(layer, tf.keras.layers.BatchNormalization):
      size = layer.gamma.shape
      layer.set_weights([rng.uniform(0.5, 1.5, size) for _ in range(4)])
    assert [v.shape for v in layer.weights] == [v.shape for v in group]
    for variable, value in zip(group, layer.get_weights()):
      variable.assign(value)
  images = rng.uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
  for training in (False, True):
    ours = model(images, training=training).numpy()
    theirs = reference(images, training=training).numpy()
    assert theirs.std() > 1e-3
    scale = np.abs(theirs).max()
    np.testing.assert_allclose(ours / scale, theirs / scale, atol=2e-5)


def test_auxiliary_norms_are_everywhere_and_apart():
  model = pretrained.build_model(
    'resnet-50',
    10,
    ('augmented', 'adversarial'),
    width_coefficient=0.125,
    depth_coefficient=0.1,
    image_size=32,
    stem_stride=1,
  )
  norms = [
    layer
    for layer in model.submodules
    if isinstance(layer, normalization.AuxBatchNormalization)
  ]
  assert len(norms) == 1 + 4 * 4
  assert all(n.auxiliary_domains == ('augmented', 'adversarial') for n in norms)
  images = tf.random.stateless_uniform([2, 32, 32, 3], [0, 0], -1, 1)
  model(images, training=True, domain='augmented')
  for norm in norms:
    # Only the statistics of the domain of the call have moved.
    assert not np.any(norm.moving_mean)
    assert not np.any(norm.norm_of('adversarial').moving_mean)
    assert np.any(norm.norm_of('augmented').moving_mean)


def test_what_a_resnet_does_not_have_is_refused():
  with pytest.raises(config.ConfigError, match='drops nothing'):
    pretrained.build_model('resnet-50', dropout_rate=0.1)
