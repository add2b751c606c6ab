"""Dataclasses that validate their fields on construction."""

from collections.abc import Collection, Iterable, Mapping
import dataclasses
import difflib
import math
import re
import typing
from typing import Any

from efficientnet_advprop.base.errors import ConfigError


def nearest(value: str, options: Iterable[str]) -> str:
  """Returns `a, b, c (did you mean b?)` for an error message."""
  options = list(options)
  matches = difflib.get_close_matches(str(value), options, 1, 0.5)
  hint = f' (did you mean {matches[0]}?)' if matches else ''
  return ', '.join(options) + hint


def check_choice(key: str, value: str, choices: Iterable[str]) -> str:
  """Returns `value` if it is one of `choices`, or raises ConfigError."""
  if value not in choices:
    raise ConfigError(key, value, nearest(value, choices))
  return value


def field(
  default: Any,
  low: float = -math.inf,
  high: float = math.inf,
  choices: Collection[str] = (),
  above: float = -math.inf,
  optional: bool = False,
) -> Any:
  """A dataclass field whose value is in [low, high], > above, in choices.

  An optional one may be given as None, which its class replaces.
  """
  metadata = dict(
    low=low, high=high, choices=choices, above=above, optional=optional
  )
  return dataclasses.field(default=default, metadata=metadata)


def _allowed_range(meta: Mapping[str, Any], kind: str) -> str:
  low, high, above = (
    f'{meta[name]:,.0f}' if 1e6 <= meta[name] < math.inf else f'{meta[name]:g}'
    for name in ('low', 'high', 'above')
  )
  if meta['above'] > -math.inf and meta['high'] < math.inf:
    return f'{kind} above {above} and at most {high}'
  if meta['above'] > -math.inf:
    return f'{kind} above {above}'
  if meta['high'] < math.inf:
    return f'{kind} from {low} to {high}'
  if meta['low'] > -math.inf:
    return f'{kind} of at least {low}'
  return kind


def strip_optional(hint: Any) -> tuple[Any, bool]:
  """Returns the type within Optional[...], and whether it was there."""
  arguments = typing.get_args(hint)
  if type(None) in arguments:
    return next(a for a in arguments if a is not type(None)), True
  return hint, False


def allowed(hint: Any, meta: Mapping[str, Any]) -> str:
  """Says which values a field takes, besides None where that is allowed.

  Args:
    hint: the field's type; None in an Optional does not matter.
    meta: the field's metadata, as `field` leaves it.
  """
  hint, _ = strip_optional(hint)
  if hint is bool:
    return 'true or false'
  if hint in (int, float):
    return _allowed_range(meta, 'a whole number' if hint is int else 'a number')
  if typing.get_origin(hint) is tuple and typing.get_args(hint)[0] is float:
    return f'a list of rising numbers, each {_allowed_range(meta, "a number")}'
  names = ', '.join(meta.get('choices', ()))
  if typing.get_origin(hint) is tuple:
    return f'none, or one or a list of {names}'
  return names or 'a string'


def _checked(name: str, value: Any, hint: Any, meta: Mapping[str, Any]) -> Any:
  """Returns `value` as the type `hint`, or raises ConfigError."""
  hint, optional = strip_optional(hint)
  if value is None and (optional or meta.get('optional')):
    return None
  if hint is bool:
    if not isinstance(value, bool):
      raise ConfigError(name, value, allowed(hint, meta))
    return value
  if hint is str:
    choices = meta.get('choices', ())
    if not isinstance(value, str):
      raise ConfigError(name, value, allowed(hint, meta))
    return check_choice(name, value, choices) if choices else value
  if typing.get_origin(hint) is tuple:
    of_numbers = typing.get_args(hint)[0] is float
    check = _checked_numbers if of_numbers else _checked_names
    return check(name, value, hint, meta)
  if hint in (int, float):
    try:
      # YAML 1.1 reads `1e-5`, which has no dot, as a string.
      number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
      number = math.nan
    inside = meta['low'] <= number <= meta['high'] and number > meta['above']
    if not math.isfinite(number) or not inside:
      raise ConfigError(name, value, allowed(hint, meta))
    if hint is int and number != int(number):
      raise ConfigError(name, value, allowed(hint, meta))
    return hint(number)
  return value


def _checked_names(
  name: str, value: Any, hint: Any, meta: Mapping[str, Any]
) -> tuple[str, ...]:
  """Returns the different choices that a list, or one name, consists of."""
  if value is None or value == 'none':
    return ()
  names = [value] if isinstance(value, str) else value
  is_list = isinstance(names, (list, tuple))
  if not is_list or len({*map(str, names)} & {*meta['choices']}) < len(names):
    raise ConfigError(name, value, allowed(hint, meta))
  return tuple(names)


def _checked_numbers(
  name: str, value: Any, hint: Any, meta: Mapping[str, Any]
) -> tuple[float, ...]:
  """Returns `value` as rising numbers, or raises ConfigError."""
  error = ConfigError(name, value, allowed(hint, meta))
  if not isinstance(value, (list, tuple)):
    raise error
  try:
    numbers = tuple(_checked(name, v, float, meta) for v in value)
  except ConfigError:
    raise error from None
  if list(numbers) != sorted(set(numbers)):
    raise error
  return numbers


class Checked:
  """Base of the sections: checks every field after construction."""

  # Keys that older versions wrote, with the only value that still means the
  # same; `build` ignores them, so that older runs resume.
  REMOVED: typing.ClassVar[Mapping[str, Any]] = {}

  def __post_init__(self) -> None:
    hints = typing.get_type_hints(type(self))
    for field in dataclasses.fields(self):  # type: ignore[arg-type]
      value = getattr(self, field.name)
      value = _checked(field.name, value, hints[field.name], field.metadata)
      self._set(field.name, value)

  def _set(self, name: str, value: Any) -> None:
    object.__setattr__(self, name, value)  # The sections are frozen.


def build(cls: Any, values: Any) -> Any:
  """Builds the dataclass `cls` from nested dictionaries.

  Raises:
    ConfigError: a key is unknown or a value is not allowed.
  """
  if not isinstance(values, dict):
    raise ConfigError(cls.__name__, values, 'a mapping of keys to values')
  hints = typing.get_type_hints(cls)
  names = [field.name for field in dataclasses.fields(cls)]
  arguments = {}
  for name, value in values.items():
    removed = getattr(cls, 'REMOVED', {})
    if name in removed and value == removed[name]:
      continue
    if name not in names:
      raise ConfigError(str(name), value, f'keys {nearest(name, names)}')
    hint, optional = strip_optional(hints[name])
    try:
      if dataclasses.is_dataclass(hint):
        if value is None and not optional:
          continue  # An empty YAML section.
        value = None if value is None else build(hint, value)
      elif typing.get_origin(hint) is Mapping:
        value = _sections(typing.get_args(hint)[1], value)
    except ConfigError as error:
      raise error.under(name) from None
    arguments[name] = value
  return cls(**arguments)


def _sections(cls: Any, values: Any) -> Mapping[str, Any]:
  if values is None:
    return {}  # Takes out all that a base recipe has.
  if not isinstance(values, dict):
    raise ConfigError('*', values, 'a mapping of names to sections')
  sections = {}
  for name, value in values.items():
    if value is None:
      continue  # Takes out what a base recipe has.
    if not re.fullmatch(r'[A-Za-z0-9_-]+', str(name)):
      raise ConfigError(str(name), value, 'names of letters, digits, _ and -')
    try:
      sections[str(name)] = build(cls, value)
    except ConfigError as error:
      raise error.under(str(name)) from None
  return sections
