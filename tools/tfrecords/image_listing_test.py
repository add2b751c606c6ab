"""Lists files that need not be images: nothing is decoded."""

import tarfile

import pytest

from efficientnet_advprop.base import errors
from tools.tfrecords import image_listing

_FILES = {'n01': ('b.png', 'a.png'), 'n02': ('c.png', 'd.png', 'e.png')}
_LISTED = [(name, file) for name in _FILES for file in sorted(_FILES[name])]


@pytest.fixture(name='folders')
def _folders(tmp_path):
  """A folder of class folders, with a hidden file in each."""
  for name, files in _FILES.items():
    folder = tmp_path / 'folders' / name
    folder.mkdir(parents=True)
    (folder / '.DS_Store').write_text('hidden')
    for file in files:
      (folder / file).write_text(f'bytes of {file}')
  return tmp_path / 'folders'


@pytest.fixture(name='tar')
def _tar(tmp_path, folders):
  """A tar file of a tar file for each class, as ImageNet's training set."""
  with tarfile.open(tmp_path / 'train.tar', 'w') as outer:
    for name, files in _FILES.items():
      with tarfile.open(tmp_path / f'{name}.tar', 'w') as inner:
        for file in files:
          inner.add(folders / name / file, file)
      outer.add(tmp_path / f'{name}.tar', f'{name}.tar')
  return tmp_path / 'train.tar'


@pytest.fixture(name='flat')
def _flat(tmp_path, folders):
  """A tar file of images without classes, and the labels of those."""
  with tarfile.open(tmp_path / 'flat.tar', 'w') as tar:
    for name, file in reversed(_LISTED):
      tar.add(folders / name / file, file)
  labels = tmp_path / 'labels.txt'
  labels.write_text(''.join(f'{name}\n' for name, _ in _LISTED))
  return tmp_path / 'flat.tar', str(labels)


def _check(images):
  assert [(image.class_name, image.name) for image in images] == _LISTED
  assert [image.read() for image in images] == [
    f'bytes of {file}'.encode() for _, file in _LISTED
  ]


def test_folders_and_tar_files_list_the_same_images(folders, tar, flat):
  found = image_listing.find_images(str(folders), None)
  _check(found)
  assert image_listing.class_names(found) == ['n01', 'n02']
  packed = image_listing.find_images(str(tar), None)
  _check(packed)
  _check(image_listing.find_images(str(flat[0]), flat[1]))
  assert found[0].path == str(folders / 'n01' / 'a.png')
  assert packed[0].path == f'{tar}: n01/a.png'


def test_the_hash_is_of_names_and_classes(folders, tar):
  before = image_listing.list_hash(image_listing.find_images(str(tar), None))
  found = image_listing.find_images(str(folders), None)
  assert image_listing.list_hash(found) == before
  (folders / 'n02' / 'c.png').rename(folders / 'n01' / 'c.png')
  found = image_listing.find_images(str(folders), None)
  assert image_listing.list_hash(found) != before


def test_a_tar_file_that_was_cut_is_named(tar):
  whole = tar.read_bytes()
  with tarfile.open(tar) as opened:
    second = opened.getmembers()[1].offset
  for length in (second, second + 700, len(whole) - 9_000):
    tar.write_bytes(whole[:length])
    with pytest.raises(errors.DataError, match=r'cut short|not a whole'):
      image_listing.find_images(str(tar), None)
  tar.write_bytes(b'no tar file' * 100)
  with pytest.raises(errors.DataError, match=r'train\.tar: not a whole, unc'):
    image_listing.find_images(str(tar), None)


@pytest.mark.parametrize(
  'labels, problem',
  [
    ('n01\n', '1 lines for the 5 images of .*flat.tar'),
    ('n01\n\nn02\nn02\nn02\n', 'line 2 is empty'),
    (None, '--labels_file must name them'),
  ],
)
def test_labels_that_do_not_fit_are_named(tmp_path, flat, labels, problem):
  path = None
  if labels is not None:
    path = str(tmp_path / 'others.txt')
    (tmp_path / 'others.txt').write_text(labels)
  with pytest.raises(errors.DataError, match=problem):
    image_listing.find_images(str(flat[0]), path)


@pytest.mark.parametrize(
  'change, problem',
  [
    (lambda root: (root / 'x.png').touch(), 'x.png: a file next to class'),
    (lambda root: (root / 'n03').mkdir(), 'n03: the class folder holds no im'),
    (lambda root: (root / 'n01/x').mkdir(), 'n01/x: a folder inside a class'),
  ],
)
def test_folders_of_no_known_shape_are_named(folders, change, problem):
  change(folders)
  with pytest.raises(errors.DataError, match=problem):
    image_listing.find_images(str(folders), None)


def test_nothing_to_list_is_named(tmp_path):
  with pytest.raises(errors.DataError, match='none: no such file or folder'):
    image_listing.find_images(str(tmp_path / 'none'), None)
  with pytest.raises(errors.DataError, match='no images'):
    image_listing.find_images(str(tmp_path), None)
