"""Settings of the whole test run."""

import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import pytest

from efficientnet_advprop import devices

# Behind the package, which chooses Keras and kernels before TensorFlow loads.
import tensorflow as tf  # isort: skip

# Two logical CPUs make a real MirroredStrategy of two replicas.
tf.config.set_logical_device_configuration(
  tf.config.list_physical_devices('CPU')[0],
  [tf.config.LogicalDeviceConfiguration()] * 2,
)
tf.config.experimental.enable_op_determinism()


def pytest_runtest_setup() -> None:
  """Gives a test the same initial weights alone, in the suite, and again."""
  tf.keras.utils.set_random_seed(0)


@pytest.fixture(scope='session', name='two_replicas')
def _two_replicas() -> tf.distribute.Strategy:
  """The strategy over both CPUs: one for all tests of a process.

  A second one over the same devices would fail; `create_strategy` knows why.
  """
  return devices.create_strategy('mirrored')
