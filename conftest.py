"""Settings of the whole test run."""

import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import tensorflow as tf

import efficientnet_advprop  # noqa: F401  Chooses Keras before TensorFlow loads.

# Two logical CPUs make a real MirroredStrategy of two replicas.
tf.config.set_logical_device_configuration(
  tf.config.list_physical_devices('CPU')[0],
  [tf.config.LogicalDeviceConfiguration()] * 2,
)
tf.config.experimental.enable_op_determinism()
