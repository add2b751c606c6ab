"""The checks of style and types, so that one command passes all of them."""

from pathlib import Path
import subprocess
import sys

import pytest


@pytest.mark.parametrize('check', ['ruff check', 'ruff format --check', 'mypy'])
def test_style(check):
  done = subprocess.run(
    [sys.executable, '-m', *check.split()],
    cwd=Path(__file__).parent,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  assert done.returncode == 0, done.stdout
