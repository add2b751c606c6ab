"""The page docs/settings.md, from the dataclasses of the configuration."""

from collections.abc import Iterator, Mapping
import dataclasses
import inspect
import re
import typing
from typing import Any

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.config import fields

_HEAD = """# Settings

```sh
.venv/bin/python main.py --config_file=hparams/demo.yaml \\
  --params_override=attack.epsilon=2,train.seed=1
```

A run is determined by these settings. They come from a recipe in `hparams`,
from the file `config.yaml` of a run, or from `--params_override`, in which keys
are separated by commas. Unknown keys and values that are not allowed end in one
line that names the key, the value and what is allowed.

"Source" says where the paper (AdvProp, Xie et al., 2020) or the official code
(EfficientNet in the TPU models of TensorFlow) has the default; it is empty
where neither has such a setting. `tools/write_settings.py` writes this page
from the sections in `efficientnet_advprop/config/`; run it after a change.
"""
Field = tuple[str, str, str, str, str]  # The cells of a row.


def comments(cls: type) -> dict[str, str]:
  """Returns the comment above each field of a dataclass, in one line."""
  found: dict[str, str] = {}
  for base in reversed(cls.__mro__[:-1]):
    lines: list[str] = []
    for line in inspect.getsource(base).splitlines():
      comment = re.match(r'  # (.*)', line)
      name = re.match(r'  (\w+): ', line)
      if comment:
        lines.append(comment[1])
        continue
      if name and lines:
        found[name[1]] = ' '.join(lines)
      lines = []
  return found


def _default(field: 'dataclasses.Field[Any]') -> str:
  if field.default_factory is not dataclasses.MISSING:
    return 'none'
  if field.default is None:
    return '`null`'
  if field.default == ():
    return '`none`'
  if isinstance(field.default, bool):
    return f'`{str(field.default).lower()}`'
  return f'`{field.default}`' if field.default != '' else 'empty'


def _own(cls: Any) -> str:
  """Returns the defaults in which an attack differs from that of training."""
  usual = {f.name: f for f in dataclasses.fields(config_lib.AttackConfig)}
  return ''.join(
    f', `{field.name}` being {_default(field)} if not given'
    for field in dataclasses.fields(cls)
    if field.default != usual[field.name].default
  )


def _rows(cls: Any) -> Iterator[Field]:
  hints = typing.get_type_hints(cls)
  texts = comments(cls)
  for field in dataclasses.fields(cls):
    hint, optional = fields.strip_optional(hints[field.name])
    text, _, source = texts[field.name].partition(' Source: ')
    if dataclasses.is_dataclass(hint):
      allowed = f'`null`, or the settings of [attack](#attack){_own(hint)}'
    elif typing.get_origin(hint) not in (None, tuple):
      allowed = 'names with settings, below'
    else:
      allowed = fields.allowed(hint, field.metadata)
      if optional or field.metadata.get('optional'):
        allowed += ', or `null`'
    text = text.replace('None: ', '`null`: ')
    key, source = f'`{field.name}`', source.rstrip('.')
    yield key, _default(field), allowed, text, source


def _section(name: str, cls: Any) -> str:
  lines = [('key', 'default', 'allowed', 'meaning', 'source'), ('---',) * 5]
  table = [f'| {" | ".join(row)} |' for row in (*lines, *_rows(cls))]
  doc = (inspect.getdoc(cls) or '').replace('None ', '`null` ')
  return '\n'.join([f'## {name}', '', doc, '', *table, ''])


def page() -> str:
  """Returns the whole page."""
  sections = [_HEAD]
  for section in dataclasses.fields(config_lib.Config):
    cls = typing.get_type_hints(config_lib.Config)[section.name]
    sections.append(_section(section.name, cls))
    for field in dataclasses.fields(cls):
      hint = typing.get_type_hints(cls)[field.name]
      if typing.get_origin(hint) is Mapping:
        _, inner = typing.get_args(hint)
        name = f'`{section.name}.{field.name}.<name>`'
        sections.append(_section(name, inner))
  return '\n'.join(sections)
