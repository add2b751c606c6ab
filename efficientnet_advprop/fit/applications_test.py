"""The networks of keras.applications are converted and take a step."""

import numpy as np
import pytest

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.fit import advprop_model
from efficientnet_advprop.fit import conversion

# The number of batch norms in each, counted in the published architecture.
NORMS = {
  'MobileNetV2': 52,
  'ResNet50': 53,
  'EfficientNetB0': 49,
  'EfficientNetV2B0': 59,
  'DenseNet121': 121,
  'InceptionV3': 94,
}
SIZE = 96
SHAPE = SIZE, SIZE, 3
IMAGES = np.random.default_rng(0).uniform(-1, 1, (4, SIZE, SIZE, 3))
IMAGES = IMAGES.astype('float32')
LABELS = np.arange(4)


@pytest.mark.slow
@pytest.mark.parametrize('name', NORMS)
@pytest.mark.parametrize('form', ['flat', 'nested'])
def test_every_norm_has_a_twin_and_a_step_is_made(keras, name, form):
  build = getattr(keras.applications, name)
  if form == 'flat':
    network = build(weights=None, classes=5, input_shape=SHAPE)
  else:
    base = build(
      weights=None,
      include_top=False,
      pooling='avg',
      input_shape=(SIZE, SIZE, 3),
    )
    network = keras.Sequential(
      [base, keras.layers.Dense(5, activation='softmax')]
    )
    network.build((None, SIZE, SIZE, 3))
  attack = config_lib.AttackConfig(epsilon=4, num_steps=1)
  model = advprop_model.AdvPropModel(network, attack, pixel_range=(-1, 1))
  assert len(model.adversarial_norms) == NORMS[name]
  paths = [norm.path for norm in model.report().norms]
  assert len(set(paths)) == NORMS[name]
  converted = conversion.Conversion(network, ('adversarial',))
  np.testing.assert_array_equal(
    converted(IMAGES, domain='adversarial'), network(IMAGES)
  )
  model.compile(keras.optimizers.SGD(0.01), 'sparse_categorical_crossentropy')
  weights = [*network.weights, *model.adversarial_norms[0].weights]
  before = [np.array(weight) for weight in weights]
  logs = model.train_on_batch(IMAGES, LABELS, return_dict=True)
  assert np.isfinite(list(logs.values())).all()
  moved = [np.any(np.array(w) != b) for w, b in zip(weights, before)]
  assert np.mean(moved) > 0.95
