"""AdvProp (Xie et al., CVPR 2020) for TensorFlow 2."""

import importlib.util
import os

# TensorFlow 2.16 and newer bring Keras 3; this project is written for Keras 2,
# which there is the package tf-keras. The variable is read when TensorFlow is
# first imported.
if importlib.util.find_spec('tf_keras') is not None:
  os.environ.setdefault('TF_USE_LEGACY_KERAS', '1')
# Also read then. TensorFlow leaves oneDNN's convolutions off on processors
# without AVX-512, where they are faster too (docs/performance.md).
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')

import tensorflow as tf

if hasattr(tf.keras, 'ops'):  # A module that only Keras 3 has.
  raise ImportError(
    'efficientnet_advprop needs Keras 2: install tf-keras and import'
    ' efficientnet_advprop before tensorflow, or set TF_USE_LEGACY_KERAS=1'
  )

from efficientnet_advprop.app.predicting import predict
from efficientnet_advprop.attacks import attack
from efficientnet_advprop.config import AttackConfig
from efficientnet_advprop.config import Config
from efficientnet_advprop.config import ConfigError
from efficientnet_advprop.config import load_config
from efficientnet_advprop.layers.normalization import AuxBatchNormalization
from efficientnet_advprop.pretrained import build_model
from efficientnet_advprop.pretrained import load_model
from efficientnet_advprop.weights.loading import restore

__all__ = [
  'AttackConfig',
  'AuxBatchNormalization',
  'Config',
  'ConfigError',
  'attack',
  'build_model',
  'load_config',
  'load_model',
  'predict',
  'restore',
]
