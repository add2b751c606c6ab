"""How much memory this process may still take."""

import os
import re
from typing import Optional

_MEMINFO = '/proc/meminfo'
_GROUP = '/sys/fs/cgroup'


def free_bytes() -> Optional[int]:
  """Returns the free memory in bytes; None where the system does not say.

  Memory that the system uses for files only, and gives back on demand, counts
  as free. In a container its limit counts, too.
  """
  text = _read(_MEMINFO)
  match = re.search(r'^MemAvailable:\s*(\d+) kB$', text, re.MULTILINE)
  if match is None:
    return None
  free = int(match.group(1)) * 1024
  limit, used = (
    _read(os.path.join(_GROUP, name)).strip()
    for name in ('memory.max', 'memory.current')
  )
  if limit.isdigit() and used.isdigit():
    stat = _read(os.path.join(_GROUP, 'memory.stat'))
    files = re.search(r'^inactive_file (\d+)$', stat, re.MULTILINE)
    given_back = int(files.group(1)) if files else 0
    free = min(free, int(limit) - int(used) + given_back)
  return max(free, 0)


def _read(path: str) -> str:
  try:
    with open(path, encoding='ascii') as file:
      return file.read()
  except OSError:
    return ''


def format_bytes(count: float) -> str:
  """Formats a number of bytes as `1.5 GB` or `12 MB`."""
  if count >= 1e9:
    return f'{count / 1e9:.1f} GB'
  return f'{count / 1e6:.0f} MB'
