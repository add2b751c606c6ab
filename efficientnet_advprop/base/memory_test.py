import pytest

from efficientnet_advprop.base import memory

_STATED = 'MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable:    4096 kB\n'


@pytest.fixture(name='system')
def _system(tmp_path, monkeypatch):
  monkeypatch.setattr(memory, '_MEMINFO', str(tmp_path / 'meminfo'))
  monkeypatch.setattr(memory, '_GROUP', str(tmp_path))
  (tmp_path / 'meminfo').write_text(_STATED)
  return tmp_path


def test_what_the_system_can_give_is_free(system):
  assert memory.free_bytes() == 4 << 20
  (system / 'memory.max').write_text('max\n')
  (system / 'memory.current').write_text('1000\n')
  assert memory.free_bytes() == 4 << 20


def test_the_limit_of_a_container_counts(system):
  (system / 'memory.max').write_text('3000000\n')
  (system / 'memory.current').write_text('2000000\n')
  assert memory.free_bytes() == 1_000_000
  (system / 'memory.stat').write_text('anon 1\ninactive_file 500000\n')
  assert memory.free_bytes() == 1_500_000
  (system / 'memory.current').write_text('9000000\n')
  assert memory.free_bytes() == 0


def test_a_system_that_does_not_say_is_none(system):
  (system / 'meminfo').unlink()
  assert memory.free_bytes() is None


def test_sizes_are_shown_in_decimal_units():
  assert memory.format_bytes(1.26e9) == '1.3 GB'
  assert memory.format_bytes(153_600_000) == '154 MB'
