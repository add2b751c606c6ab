"""The Keras versions that this room's tests run with."""

import importlib.util
from typing import Any

import pytest
import tensorflow as tf


def _namespaces() -> list[Any]:
  """Keras modules to be had in this environment: 2, 3 or both.

  Keras 2 is tested once, on the older stack.
  """
  found = [tf.keras]
  if not hasattr(tf.keras, 'ops') and importlib.util.find_spec('keras'):
    keras = importlib.import_module('keras')
    if keras.Model is not tf.keras.Model:
      found.append(keras)
  return [
    pytest.param(keras, id='keras3')
    if hasattr(keras, 'ops')
    else pytest.param(keras, id='keras2', marks=pytest.mark.once)
    for keras in found
  ]


@pytest.fixture(name='keras', params=_namespaces())
def _keras(request: pytest.FixtureRequest) -> Any:
  """A Keras module, with seeded random numbers."""
  request.param.utils.set_random_seed(0)
  yield request.param
  request.param.backend.clear_session()
