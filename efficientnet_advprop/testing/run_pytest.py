"""Runs one test file under pytest, for build systems that start a script."""

import sys

import pytest

if __name__ == '__main__':
  sys.exit(pytest.main(sys.argv[1:]))
