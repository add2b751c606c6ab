"""The classes of ImageNet and of its variants, by their WordNet numbers.

`imagenet_synsets.txt` lists the 1,000 classes in the order of the labels; the
letters behind one say that it is also a class of ImageNet-A or ImageNet-R.
"""

from collections.abc import Sequence
import functools
import os

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors

_FILE = os.path.join(os.path.dirname(__file__), 'imagenet_synsets.txt')
_LETTERS = {'imagenet_a': 'A', 'imagenet_r': 'R'}


@functools.lru_cache(maxsize=1)
def _table() -> tuple[tuple[str, str], ...]:
  with open(_FILE, encoding='utf-8') as file:
    lines = [line.split() for line in file]
  return tuple((line[0], ''.join(line[1:])) for line in lines)


def synsets() -> list[str]:
  """The WordNet numbers of the classes, from label 0 to label 999."""
  return [synset for synset, _ in _table()]


def classes(kind: str) -> tuple[int, ...]:
  """The labels that occur in a variant of ImageNet, in ascending order.

  Args:
    kind: one of `config.IMAGENET_SETS`; ImageNet-A and -R have 200 classes,
      the others all 1,000.
  """
  config_lib.check_choice('kind', kind, config_lib.IMAGENET_SETS)
  letter = _LETTERS.get(kind, '')
  return tuple(
    i for i, (_, letters) in enumerate(_table()) if letter in letters
  )


def labels_of_folders(
  kind: str, directory: str, names: Sequence[str]
) -> list[int]:
  """The label of each class folder, checked against the known list.

  The folders are named by WordNet numbers; those of ImageNet-V2 are the labels
  themselves, 0 to 999, in its official files.

  Args:
    kind: one of `config.IMAGENET_SETS`.
    directory: that holds the folders, for messages.
    names: of the folders.

  Raises:
    DataError: a name is unknown, or a class has no folder.
  """
  table = synsets()
  if kind == 'imagenet_v2' and any(name.isdigit() for name in names):
    table = [str(label) for label in range(len(table))]
  known = {table[label]: label for label in classes(kind)}
  for name in names:
    if name not in known:
      what = 'ImageNet'
      if name in table:
        what = f'the {len(known)} of {kind}'
      raise errors.DataError(
        f'{directory}: the folder {name!r} is no class of {what}'
      )
  missing = sorted(set(known) - set(names))
  if missing:
    raise errors.DataError(
      f'{directory}: the class folder {missing[0]} is missing'
      f' ({len(names)} of {len(known)} are there)'
    )
  return [known[name] for name in names]
