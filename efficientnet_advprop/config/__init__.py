"""What a run is: its settings, and how recipes and overrides become them.

A `Config` and its seed determine a run completely. Values are checked where
they enter; a bad one raises `ConfigError`, whose message is one line that names
the key, the value and what is allowed.
"""

from collections.abc import Iterable, Mapping
import dataclasses
from typing import Any

import yaml

from efficientnet_advprop.base.errors import ConfigError as ConfigError
from efficientnet_advprop.config import fields
from efficientnet_advprop.config import recipes
from efficientnet_advprop.config.architectures import MODEL_NAMES as MODEL_NAMES
from efficientnet_advprop.config.attack import AttackConfig as AttackConfig
from efficientnet_advprop.config.attack import (
  EvalAttackConfig as EvalAttackConfig,
)
from efficientnet_advprop.config.data import DataConfig as DataConfig
from efficientnet_advprop.config.evaluation import (
  IMAGENET_SETS as IMAGENET_SETS,
)
from efficientnet_advprop.config.evaluation import TEST_KINDS as TEST_KINDS
from efficientnet_advprop.config.evaluation import EvalConfig as EvalConfig
from efficientnet_advprop.config.evaluation import ExportConfig as ExportConfig
from efficientnet_advprop.config.evaluation import (
  NamedTestConfig as NamedTestConfig,
)
from efficientnet_advprop.config.fields import check_choice as check_choice
from efficientnet_advprop.config.fields import nearest as nearest
from efficientnet_advprop.config.methods import MAIN_DOMAIN as MAIN_DOMAIN
from efficientnet_advprop.config.methods import METHODS as METHODS
from efficientnet_advprop.config.network import ModelConfig as ModelConfig
from efficientnet_advprop.config.sections import Config as Config
from efficientnet_advprop.config.training import DomainConfig as DomainConfig
from efficientnet_advprop.config.training import TrainConfig as TrainConfig


def to_dict(config: Any) -> dict:
  """The nested dictionary that `from_dict` turns back into `config`."""
  return dataclasses.asdict(config)


def model_config(name: str, overrides: Mapping[str, Any]) -> ModelConfig:
  """Builds a `ModelConfig` from a name and further fields by their names."""
  return fields.build(ModelConfig, {'name': name, **overrides})


def from_dict(values: Mapping[str, Any]) -> Config:
  """Builds a `Config` from nested dictionaries.

  Raises:
    ConfigError: a key is unknown or a value is not allowed.
  """
  return fields.build(Config, values)


def to_yaml(config: Config) -> str:
  """The YAML that `read_yaml` and `from_dict` turn back into `config`."""
  return yaml.safe_dump(to_dict(config), sort_keys=False)


def load_config(path: str, overrides: Iterable[str] = ()) -> Config:
  """Reads a recipe (YAML) and applies overrides like `'train.epochs=3'`.

  Raises:
    ConfigError: the file or a value is not allowed; one line says why.
  """
  return from_dict(recipes.apply_overrides(recipes.read_yaml(path), overrides))
