"""Lists the images of a split: in class folders, flat folders, or tar files.

Tar files are read where they are: their headers tell where in the file each
image is, also of tar files within a tar file.
"""

from collections.abc import Iterator, Sequence
import hashlib
import os
import tarfile
from typing import NamedTuple, Optional

from efficientnet_advprop.base import errors

_BLOCK_BYTES = 512  # Of a tar file, which ends in zeros.


class Image(NamedTuple):
  """Where an image's bytes are.

  Attributes:
    class_name: of its class.
    name: its own, without folders.
    file: the path of the image, or of the tar file that holds it.
    offset: of its first byte in the file.
    size: in bytes; -1: up to the end of the file.
  """

  class_name: str
  name: str
  file: str
  offset: int = 0
  size: int = -1

  @property
  def path(self) -> str:
    """The path that messages show."""
    if self.size < 0:
      return self.file
    return f'{self.file}: {self.class_name}/{self.name}'

  def read(self) -> bytes:
    """Reads the bytes of the image file."""
    with open(self.file, 'rb') as file:
      file.seek(self.offset)
      return file.read(self.size)


def find_images(path: str, labels_file: Optional[str]) -> list[Image]:
  """Lists the images of a split, sorted by class and name.

  Args:
    path: a folder of class folders, a tar file of <class>.tar files, or a
      folder or tar file of images without classes.
    labels_file: names the classes of images without: one a line, in the order
      of the sorted file names.

  Raises:
    DataError: one line: nothing is there, a tar file was cut short, a class is
      empty, or `labels_file` does not fit.
    OSError: something cannot be read.
  """
  if os.path.isdir(path):
    found = list(_in_folder(path))
  elif os.path.isfile(path):
    found = list(_in_tar(path))
  else:
    raise errors.DataError(f'{path}: no such file or folder')
  if not found:
    raise errors.DataError(f'{path}: no images')
  if not found[0].class_name:
    found = _with_classes(path, found, labels_file)
  # By code points: the same on every machine, whatever its language.
  return sorted(found, key=lambda image: (image.class_name, image.name))


def class_names(images: Sequence[Image]) -> list[str]:
  """Returns the sorted names of the classes; label n is name n - 1."""
  return sorted({image.class_name for image in images})


def list_hash(images: Sequence[Image]) -> str:
  """Returns a hash of classes and names, wherever the images are."""
  digest = hashlib.sha256()
  for image in images:
    digest.update(f'{image.class_name}/{image.name}\n'.encode())
  return digest.hexdigest()


# --- Folders ----------------------------------------------------------------


def _names(folder: str) -> tuple[list[str], list[str]]:
  """Lists the folders and files in a folder, without hidden ones."""
  with os.scandir(folder) as entries:
    shown = [entry for entry in entries if not entry.name.startswith('.')]
    folders = [entry.name for entry in shown if entry.is_dir()]
    return folders, [entry.name for entry in shown if not entry.is_dir()]


def _in_folder(path: str) -> Iterator[Image]:
  classes, files = _names(path)
  if classes and files:
    file = os.path.join(path, min(files))
    raise errors.DataError(f'{file}: a file next to class folders')
  for name in files:
    yield Image('', name, os.path.join(path, name))
  for class_name in classes:
    folder = os.path.join(path, class_name)
    inner, files = _names(folder)
    if inner:
      where = os.path.join(folder, min(inner))
      raise errors.DataError(f'{where}: a folder inside a class folder')
    if not files:
      raise errors.DataError(f'{folder}: the class folder holds no image')
    for name in files:
      yield Image(class_name, name, os.path.join(folder, name))


# --- Tar files --------------------------------------------------------------


def _members(path: str, start: int, end: int) -> Iterator[tarfile.TarInfo]:
  """Yields the files of a tar file inside a file; places are in the whole.

  Python takes a tar file that was cut between two members for a whole one.
  """
  last = start
  with open(path, 'rb') as file:
    file.seek(start)
    try:
      with tarfile.TarFile(path, 'r', fileobj=file) as tar:
        for member in tar:
          blocks = -(-member.size // _BLOCK_BYTES)
          last = member.offset_data + blocks * _BLOCK_BYTES
          if member.isfile():
            yield member
    except tarfile.TarError as error:
      reason = ' '.join(str(error).split())
      raise errors.DataError(
        f'{path}: not a whole, uncompressed tar file ({reason})'
      ) from None
    file.seek(last)
    mark = file.read(_BLOCK_BYTES)
  if last + _BLOCK_BYTES > end or mark != bytes(_BLOCK_BYTES):
    raise errors.DataError(f'{path}: a tar file that was cut short')


def _in_tar(path: str) -> Iterator[Image]:
  for member in _members(path, 0, os.path.getsize(path)):
    name, suffix = os.path.splitext(os.path.basename(member.name))
    start = member.offset_data
    if suffix != '.tar':
      yield Image('', name + suffix, path, start, member.size)
      continue
    inner = list(_members(path, start, start + member.size))
    if not inner:
      raise errors.DataError(f'{path}: {member.name} holds no image')
    for image in inner:
      file = os.path.basename(image.name)
      yield Image(name, file, path, image.offset_data, image.size)


# --- Labels -----------------------------------------------------------------


def _with_classes(
  path: str, images: Sequence[Image], labels_file: Optional[str]
) -> list[Image]:
  if labels_file is None:
    raise errors.DataError(
      f'{path}: images without classes; --labels_file must name them'
    )
  with open(labels_file, encoding='utf-8') as file:
    names = file.read().split('\n')
  if names[-1] == '':
    names.pop()
  names = [name.strip() for name in names]
  if len(names) != len(images):
    raise errors.DataError(
      f'{labels_file}: {len(names)} lines for the {len(images)} images of'
      f' {path}'
    )
  if '' in names:
    raise errors.DataError(
      f'{labels_file}: line {names.index("") + 1} is empty'
    )
  ordered = sorted(images, key=lambda image: image.name)
  return [
    image._replace(class_name=name) for image, name in zip(ordered, names)
  ]
