"""AdvProp (Xie et al., CVPR 2020) for TensorFlow 2 and Keras.

Names are imported when they are first used, so that importing the package costs
little and does not fail where a part of it cannot run.
"""

import importlib
import importlib.util
import os
from typing import TYPE_CHECKING, Any

# TensorFlow 2.16 and newer bring Keras 3; the networks of this project are
# written for Keras 2, which there is the package tf-keras. The variable is read
# when TensorFlow is first imported.
if importlib.util.find_spec('tf_keras') is not None:
  os.environ.setdefault('TF_USE_LEGACY_KERAS', '1')
# Also read then. TensorFlow leaves oneDNN's convolutions off on processors
# without AVX-512, where they are faster too (docs/performance.md).
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')

if TYPE_CHECKING:
  from efficientnet_advprop.app.predicting import predict
  from efficientnet_advprop.attacks import attack
  from efficientnet_advprop.config import AttackConfig
  from efficientnet_advprop.config import Config
  from efficientnet_advprop.config import ConfigError
  from efficientnet_advprop.config import load_config
  from efficientnet_advprop.fit.advprop_model import AdvPropModel
  from efficientnet_advprop.layers.normalization import AuxBatchNormalization
  from efficientnet_advprop.layers.normalization import domain_scope
  from efficientnet_advprop.pretrained import build_model
  from efficientnet_advprop.pretrained import load_model
  from efficientnet_advprop.weights.loading import restore

# The module of each public name.
_MODULES = {
  'AdvPropModel': 'fit.advprop_model',
  'AttackConfig': 'config',
  'AuxBatchNormalization': 'layers.normalization',
  'Config': 'config',
  'ConfigError': 'config',
  'attack': 'attacks',
  'build_model': 'pretrained',
  'domain_scope': 'layers.normalization',
  'load_config': 'config',
  'load_model': 'pretrained',
  'predict': 'app.predicting',
  'restore': 'weights.loading',
}

__all__ = [
  'AdvPropModel',
  'AttackConfig',
  'AuxBatchNormalization',
  'Config',
  'ConfigError',
  'attack',
  'build_model',
  'domain_scope',
  'load_config',
  'load_model',
  'predict',
  'restore',
]


def __getattr__(name: str) -> Any:
  if name not in _MODULES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module = importlib.import_module(f'{__name__}.{_MODULES[name]}')
  value = globals()[name] = getattr(module, name)
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *_MODULES})
