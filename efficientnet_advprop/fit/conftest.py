"""The Keras versions that this room's tests run with."""

import importlib.util
from typing import Any

import pytest
import tensorflow as tf


def _namespaces() -> list[Any]:
  """Keras modules to be had in this environment: 2, 3 or both."""
  found = [tf.keras]
  if not hasattr(tf.keras, 'ops') and importlib.util.find_spec('keras'):
    keras = importlib.import_module('keras')
    if keras.Model is not tf.keras.Model:
      found.append(keras)
  return found


@pytest.fixture(
  name='keras',
  params=_namespaces(),
  ids=lambda keras: 'keras3' if hasattr(keras, 'ops') else 'keras2',
)
def _keras(request: pytest.FixtureRequest) -> Any:
  """A Keras module, with seeded random numbers."""
  request.param.utils.set_random_seed(0)
  yield request.param
  request.param.backend.clear_session()
