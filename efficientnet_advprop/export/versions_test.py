import os
import pathlib

import pytest

from efficientnet_advprop.base import errors
from efficientnet_advprop.export import versions


def test_version_numbers_are_never_reused(tmp_path):
  def publish():
    with versions.new_version(os.fspath(tmp_path)) as folder:
      return versions.publish(folder)

  first = publish()
  second = publish()
  assert int(os.path.basename(second)) > int(os.path.basename(first))
  os.rmdir(second)
  third = publish()
  assert int(os.path.basename(third)) > int(os.path.basename(second))
  (tmp_path / '99999999999').mkdir()
  assert publish() == os.fspath(tmp_path / '100000000000')


def test_failed_version_leaves_nothing(tmp_path):
  version = versions.new_version(os.fspath(tmp_path))
  with pytest.raises(KeyError), version as folder:
    pathlib.Path(folder, 'part').write_text('x')
    raise KeyError('x')
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('folder', ['file', '/sys'])
def test_unwritable_folder(tmp_path, folder):
  (tmp_path / 'file').write_text('')
  # /sys takes no new folders, even from root.
  export_dir = os.fspath(tmp_path / folder / 'export')
  version = versions.new_version(export_dir)
  with pytest.raises(
    errors.ExportError, match='cannot be written to'
  ) as caught:
    version.__enter__()
  assert len(str(caught.value).splitlines()) == 1
