import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config
from efficientnet_advprop import pretrained
from efficientnet_advprop.layers import convolution
from efficientnet_advprop.layers import normalization

# Without auxiliary norms, at 1000 classes.
_PARAMETERS = {
  'efficientnet-b0': 5_288_548,
  'efficientnet-b1': 7_794_184,
  'efficientnet-b2': 9_109_994,
  'efficientnet-b3': 12_233_232,
  'efficientnet-b4': 19_341_616,
  'efficientnet-b5': 30_389_784,
  'efficientnet-b6': 43_040_704,
  'efficientnet-b7': 66_347_960,
  'efficientnet-b8': 87_413_142,
  'efficientnet-lite0': 4_652_008,
  'efficientnet-lite1': 5_416_680,
  'efficientnet-lite2': 6_092_072,
  'efficientnet-lite3': 8_197_096,
  'efficientnet-lite4': 13_006_568,
}
_TINY = dict(
  image_size=32, stem_stride=1, width_coefficient=0.25, depth_coefficient=0.2
)


def _count(variables):
  return sum(variable.shape.num_elements() for variable in variables)


def _auxiliary(model):
  found = []
  for layer in model.submodules:
    if isinstance(layer, normalization.AuxBatchNormalization):
      for domain in layer.auxiliary_domains:
        found += layer.norm_of(domain).trainable_variables
  return found


def test_every_model_has_its_count():
  names = {name for name in config.MODEL_NAMES if 'efficient' in name}
  assert set(_PARAMETERS) == names


@pytest.mark.once
@pytest.mark.parametrize('name', sorted(_PARAMETERS))
def test_parameter_counts_are_the_published_ones(name):
  model = pretrained.build_model(name)
  auxiliary = _count(_auxiliary(model))
  plain = _count(model.trainable_variables) - auxiliary
  assert plain == _PARAMETERS[name]
  if name == 'efficientnet-b7':  # The paper, section 4.3: 0.5%.
    assert auxiliary / plain == pytest.approx(0.005, abs=0.0005)


def _reference():
  """keras.applications' B0 with random weights and statistics."""
  reference = tf.keras.applications.EfficientNetB0(
    weights=None, classifier_activation=None
  )
  rng = np.random.default_rng(0)
  for layer in reference.layers:
    if isinstance(layer, tf.keras.layers.BatchNormalization):
      channels = layer.gamma.shape
      positive = [rng.uniform(0.5, 1.5, channels) for _ in range(2)]
      centred = [rng.normal(0, 0.1, channels) for _ in range(2)]
      layer.set_weights([positive[0], *centred, positive[1]])
    elif isinstance(layer, tf.keras.layers.Dropout):
      layer.rate = 0
  return reference


def _copy_weights(reference, model):
  """Copies by the order of layers, which both networks share."""
  kinds = (
    tf.keras.layers.Conv2D,
    tf.keras.layers.DepthwiseConv2D,
    tf.keras.layers.Dense,
    tf.keras.layers.BatchNormalization,
  )
  sources = [x.weights for x in reference.layers if isinstance(x, kinds)]
  targets = []
  for block in (model.stem, *model.blocks, model.head):
    for part in _parts(block):
      if isinstance(part, convolution.NormalizedConv2D):
        norm = part.norm
        targets.append([part.kernel])
        targets.append(
          [norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance]
        )
      else:
        targets += [part.reduce.weights, part.expand.weights]
  targets.append(model.classifier.weights)
  assert len(sources) == len(targets)
  for source, target in zip(sources, targets):
    assert len(source) == len(target)
    for value, variable in zip(source, target):
      variable.assign(value)


def _parts(block):
  if isinstance(block, convolution.NormalizedConv2D):
    return [block]
  parts = [block.expand, block.depthwise, block.excite, block.project]
  return [part for part in parts if part is not None]


def test_b0_equals_keras_applications():
  reference = _reference()
  model = pretrained.build_model(
    'efficientnet-b0', dropout_rate=0, survival_probability=1
  )
  _copy_weights(reference, model)
  images = np.random.default_rng(1).uniform(-1, 1, (2, 224, 224, 3))
  images = images.astype(np.float32)
  for training in (False, True):
    ours = model(images, training=training, seed=[0, 0])
    # The reference divides its input by 255.
    theirs = reference(images * 255, training=training)
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_small_images_and_overrides():
  model = pretrained.build_model('efficientnet-b0', 10, **_TINY)
  logits = model(tf.zeros([2, 32, 32, 3]))
  assert logits.shape == (2, 10) and logits.dtype == tf.float32
  assert len(model.blocks) == 7
  with pytest.raises(config.ConfigError, match='did you mean image_size'):
    pretrained.build_model('efficientnet-b0', image_sise=3)


def test_a_seed_makes_training_passes_repeat():
  model = pretrained.build_model('efficientnet-b0', 10, **_TINY)
  images = tf.random.stateless_uniform([4, 32, 32, 3], [0, 0], -1, 1)
  run = lambda seed: model(images, training=True, seed=seed).numpy()
  np.testing.assert_array_equal(run([1, 2]), run([1, 2]))
  assert (run([1, 2]) != run([1, 3])).any()


def test_survival_falls_linearly_with_the_block():
  model = pretrained.build_model('efficientnet-b0', 10, (), **_TINY)
  seen = []
  for block in model.blocks:
    call = block.call
    block.call = lambda *a, _call=call, **k: (
      seen.append(k['survival']) or _call(*a, **k)
    )
  model(tf.zeros([1, 32, 32, 3]), training=True, seed=[0, 0])
  expected = [1 - 0.2 * index / 7 for index in range(7)]
  assert seen == pytest.approx(expected)


def test_dropout_keeps_the_mean():
  model = pretrained.build_model(
    'efficientnet-b0', 10, (), **_TINY, survival_probability=1
  )
  kept = model._draw(tf.zeros([256, 1]), tf.constant([3, 4]))[:, 7:]
  assert kept.shape == (256, model.features)
  share = np.mean(kept >= model.model_config.dropout_rate)
  assert share == pytest.approx(0.8, abs=0.005)


def test_bfloat16_computes_in_it_and_returns_float32():
  tf.keras.mixed_precision.set_global_policy('mixed_bfloat16')
  try:
    model = pretrained.build_model('efficientnet-b0', 10, **_TINY)
  finally:
    tf.keras.mixed_precision.set_global_policy('float32')
  assert model.stem.kernel.dtype == tf.float32
  images = tf.random.stateless_uniform([2, 32, 32, 3], [0, 0], -1, 1)
  assert model.stem(images).dtype == tf.bfloat16
  with tf.GradientTape() as tape:
    tape.watch(images)
    logits = model(images, domain='adversarial')
  assert logits.dtype == tf.float32
  assert tape.gradient(logits, images).dtype == tf.float32
