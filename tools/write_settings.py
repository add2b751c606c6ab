"""Writes docs/settings.md, the reference of all settings of a run.

  .venv/bin/python tools/write_settings.py

The page is made of the configuration's dataclasses: of each field its default,
what it allows, and the comment above it. What a comment says after `Source:` is
where the value comes from.
"""

from collections.abc import Sequence
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop.app import program
from efficientnet_advprop.base import files
from tools.documents import settings

_FLAGS = program.flag_values(__name__)
_OUTPUT = flags.DEFINE_string(
  'output', 'docs/settings.md', 'The page.', flag_values=_FLAGS
)


def main(_: Sequence[str]) -> None:
  """Writes the page."""
  files.write(str(_OUTPUT.value), settings.page())


if __name__ == '__main__':
  program.run('write_settings', main, _FLAGS)
