"""YAML recipes, inheritance between them, and overrides."""

from collections.abc import Iterable, Mapping
import os
import re
from typing import Any

import tensorflow as tf
import yaml

from efficientnet_advprop.base.errors import ConfigError


def merge(base: dict, changes: Mapping[str, Any]) -> dict:
  """Returns `base` with the keys of `changes` set, section by section."""
  merged = dict(base)
  for key, value in changes.items():
    if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
      merged[key] = merge(merged[key], value)
    else:
      merged[key] = value
  return merged


def read_yaml(path: str) -> dict:
  """Reads a recipe; its `base:` names a recipe that it changes, by path.

  Raises:
    ConfigError: the file is missing, is not YAML, or is its own base.
  """
  return _read_yaml(os.fspath(path), ())


def _read_yaml(path: str, readers: tuple[str, ...]) -> dict:
  if path in readers:
    raise ConfigError('base', path, 'a recipe that is not its own base')
  try:
    with tf.io.gfile.GFile(path) as file:
      values = yaml.safe_load(file.read()) or {}
  except tf.errors.NotFoundError:
    reason = 'a YAML file that exists; there is no such file'
    raise ConfigError('config_file', path, reason) from None
  except tf.errors.OpError as error:
    reason = f'a readable YAML file ({error.message.split(";")[-1].strip()})'
    raise ConfigError('config_file', path, reason) from None
  except (yaml.YAMLError, UnicodeDecodeError) as error:
    reason = ' '.join(str(error).split())
    raise ConfigError('config_file', path, f'valid YAML ({reason})') from None
  if not isinstance(values, dict):
    raise ConfigError('config_file', path, 'a YAML mapping of sections')
  base = values.pop('base', None)
  if base is None:
    return values
  base_path = os.path.normpath(os.path.join(os.path.dirname(path), str(base)))
  return merge(_read_yaml(base_path, (*readers, path)), values)


def parse_overrides(text: str) -> tuple[str, ...]:
  """Splits `a.b=1,c.d=[2,3]` into `('a.b=1', 'c.d=[2,3]')`."""
  parts = re.split(r',(?=\s*[\w.\-]+\s*=)', text)
  return tuple(part.strip() for part in parts if part.strip())


def apply_overrides(values: dict, overrides: Iterable[str]) -> dict:
  """Returns `values` with each `section.key=value` of `overrides` set."""
  for override in overrides:
    key, separator, text = override.partition('=')
    if not separator or '.' not in key:
      raise ConfigError('params_override', override, 'section.key=value')
    try:
      value = yaml.safe_load(text)
    except yaml.YAMLError:
      raise ConfigError(key, text, 'a YAML value') from None
    changes: Any = value
    for name in reversed(key.strip().split('.')):
      changes = {name: changes}
    values = merge(values, changes)
  return values
