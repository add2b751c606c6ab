"""Files that are written whole or not at all, on local and remote paths."""

from collections.abc import Iterator
import contextlib
import json
import os
from typing import Any, Union

import tensorflow as tf


@contextlib.contextmanager
def whole(path: str) -> Iterator[str]:
  """Yields a temporary path that becomes `path` when the context ends well.

  A reader never sees a part of the file, and a process that is killed leaves
  `path` as it was. After an exception the temporary file is removed. Its name
  begins with a dot, so that patterns such as `train-*` do not match it.

  Args:
    path: local or remote (`gs://`); its folder exists.
  """
  temporary = temporary_name(path)
  try:
    yield temporary
  except BaseException:
    if tf.io.gfile.exists(temporary):
      tf.io.gfile.remove(temporary)
    raise
  tf.io.gfile.rename(temporary, path, overwrite=True)


def temporary_name(path: str) -> str:
  """Returns the name under which `whole` writes a file at first."""
  folder, name = os.path.split(path)
  return os.path.join(folder, f'.{name}.tmp')


def write(path: str, content: Union[str, bytes]) -> None:
  """Writes a file whole or not at all.

  Args:
    path: local or remote.
    content: text, which becomes UTF-8, or bytes.
  """
  data = content.encode() if isinstance(content, str) else content
  with whole(path) as temporary, tf.io.gfile.GFile(temporary, 'wb') as file:
    file.write(data)


def write_json(path: str, value: Any, **options: Any) -> None:
  """Writes a value as JSON, whole or not at all.

  Args:
    path: local or remote.
    value: what `json.dumps` takes.
    **options: of `json.dumps`, such as `indent=2`.
  """
  write(path, json.dumps(value, **options) + '\n')
