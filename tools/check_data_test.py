import os

import pytest

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.testing import tiny_data
from tools import check_data


def _lines(capfd, directory, split='train', **settings):
  config = config_lib.DataConfig(
    dir=os.fspath(directory), max_bad_records=1000, **settings
  )
  problems = check_data.check_split(config, split)
  lines = capfd.readouterr().out.splitlines()
  assert len(lines) == problems + 1
  return lines


def test_all_bad_files_of_class_folders_are_listed(tmp_path, capfd):
  tiny_data.write_class_folders(tmp_path, {'train': 60})
  assert _lines(capfd, tmp_path) == ['train: 60 images read, 0 problems']
  folder = tmp_path / 'train'
  (folder / 'class_0' / '0003.png').write_bytes(b'nothing')
  (folder / 'class_1' / '0004.png').write_bytes(b'')
  whole = (folder / 'class_2' / '0005.png').read_bytes()
  (folder / 'class_2' / '0005.png').write_bytes(whole[:-40])
  small = tiny_data.encoded_image(7, 4, 4)
  (folder / 'class_2' / '0059.png').write_bytes(small)
  lines = _lines(capfd, tmp_path)
  expected = [
    ('class_0/0003.png', 'the image cannot be decoded (7 bytes)'),
    ('class_1/0004.png', 'it holds no image'),
    ('class_2/0005.png', 'the image cannot be decoded'),
    ('class_2/0059.png', 'the image has 4 x 4 pixels'),
  ]
  assert len(lines) == 5
  for line, (name, reason) in zip(lines, expected):
    assert line.startswith(f'{folder}/{name}: {reason}')
  assert lines[-1] == 'train: 60 images read, 4 problems'


def test_damaged_records_are_listed(tmp_path, capfd):
  paths = tiny_data.write_split(tmp_path, 'train', [20, 20])
  os.truncate(paths[1], os.path.getsize(paths[1]) - 3)
  bad = tiny_data.example(tiny_data.encoded_image(0), 4)
  extra = os.path.join(tmp_path, 'hard-00000-of-00001')
  tiny_data.write_shard(extra, [bad])
  lines = _lines(capfd, tmp_path)
  assert lines == [
    f'{paths[1]}: record 19: the file ends 3 bytes too early',
    'train: 39 images read, 1 problems',
  ]
  lines = _lines(capfd, tmp_path, 'hard', num_classes=3)
  assert lines[0] == f'{extra}: record 0: the label 4 is not in 1..3'


def test_a_missing_split_is_named(tmp_path, capfd):
  with pytest.raises(errors.DataError, match="no images of the split 'test'"):
    _lines(capfd, tmp_path, 'test')
