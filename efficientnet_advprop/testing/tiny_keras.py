"""A tiny Keras network and data for the tests of `AdvPropModel`.

Each function takes the Keras module to use: Keras 2 or Keras 3.
"""

from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.fit import advprop_model

_RANDOM = np.random.default_rng(0)
IMAGES = _RANDOM.uniform(0, 255, (12, 8, 8, 3)).astype('float32')
LABELS = _RANDOM.integers(0, 5, 12)
IFGSM = config_lib.AttackConfig(
  name='ifgsm', epsilon=8, num_steps=2, step_size=4, target='label'
)
PGD = config_lib.AttackConfig(epsilon=4, target='random')


def layers_of(keras: Any, **dense: Any) -> dict[str, Any]:
  """Layers of a small network, by name; `dense` sets the last one's."""
  layers = keras.layers
  return {
    'scale': layers.Rescaling(1 / 128, -1),
    'conv': layers.Conv2D(4, 3, use_bias=False),
    'norm': layers.BatchNormalization(momentum=0.9),
    'relu': layers.ReLU(),
    'conv2': layers.Conv2D(6, 3, kernel_regularizer='l2'),
    'norm2': layers.BatchNormalization(momentum=0.8),
    'pool': layers.GlobalAveragePooling2D(),
    'top': layers.Dense(5, **dense),
  }


def functional(keras: Any, layers: dict[str, Any]) -> Any:
  """The network of such layers, one after another."""
  inputs = x = keras.Input((8, 8, 3))
  for layer in layers.values():
    x = layer(x)
  return keras.Model(inputs, x)


def network(keras: Any, **dense: Any) -> Any:
  """The small network, from images of 8 pixels to 5 logits."""
  return functional(keras, layers_of(keras, **dense))


def compiled(
  keras: Any,
  base: Optional[Any] = None,
  attack: config_lib.AttackConfig = IFGSM,
  **settings: Any,
) -> Any:
  """An `AdvPropModel` of `base`, by default the small network, to be fitted."""
  settings.setdefault('pixel_range', (0, 255))
  model = advprop_model.AdvPropModel(base or network(keras), attack, **settings)
  model.compile(
    keras.optimizers.SGD(0.1),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=['accuracy'],
  )
  return model


def values(weights: Sequence[Any]) -> list[np.ndarray]:
  """Copies of weights."""
  return [np.array(weight) for weight in weights]


def assert_near(
  first: Sequence[Any], second: Sequence[Any], tolerance: float = 1e-6
) -> None:
  """Asserts that two lists of arrays are equal up to a difference."""
  assert len(first) == len(second) > 0
  for a, b in zip(first, second):
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


def attacked(
  model: Any, labels: np.ndarray, images: np.ndarray = IMAGES
) -> np.ndarray:
  """Attacked images, which epsilon is seen to bound."""
  epsilon = model._setup.config.attack.epsilon
  result = model.attack(images, labels, seed=3)
  assert np.abs(result - images).max() <= epsilon * 1.0001
  return np.array(result)
