import json

import pytest

from efficientnet_advprop.base import files


def test_write_replaces_text_and_bytes(tmp_path):
  path = tmp_path / 'file.txt'
  files.write(str(path), 'grün\n')
  assert path.read_bytes() == 'grün\n'.encode()
  files.write(str(path), b'\xff\0')
  assert path.read_bytes() == b'\xff\0'
  assert [p.name for p in tmp_path.iterdir()] == ['file.txt']


def test_a_failed_write_keeps_the_old_file(tmp_path):
  path = tmp_path / 'file.txt'
  path.write_text('old')
  with pytest.raises(ZeroDivisionError), files.whole(str(path)) as temporary:
    with open(temporary, 'w') as file:
      file.write('half')
    raise ZeroDivisionError
  assert path.read_text() == 'old'
  assert [p.name for p in tmp_path.iterdir()] == ['file.txt']


def test_a_temporary_file_is_hidden():
  assert files.temporary_name('a/train-0') == 'a/.train-0.tmp'


def test_write_json(tmp_path):
  path = tmp_path / 'file.json'
  files.write_json(str(path), {'a': [1]}, indent=2)
  assert json.loads(path.read_text()) == {'a': [1]}
  assert path.read_text().endswith('}\n')
