import hashlib

import pytest

from efficientnet_advprop.base import errors
from efficientnet_advprop.evaluation import imagenet_classes


def test_the_classes_are_the_known_ones():
  synsets = imagenet_classes.synsets()
  assert len(synsets) == 1000 and synsets == sorted(set(synsets))
  assert synsets[0] == 'n01440764' and synsets[-1] == 'n15075141'
  assert len(imagenet_classes.classes('imagenet_r')) == 200
  assert imagenet_classes.classes('imagenet_c') == tuple(range(1000))
  # Of the 200 numbers as timm lists them, a line each.
  labels = imagenet_classes.classes('imagenet_a')
  text = '\n'.join(synsets[label] for label in labels)
  digest = hashlib.sha256(text.encode()).hexdigest()
  assert len(labels) == 200 and digest.startswith('f6aa4b23244554d9')


@pytest.mark.parametrize('kind', ['imagenet_a', 'imagenet_r', 'imagenet_c'])
def test_folders_have_imagenet_s_labels(kind):
  synsets = imagenet_classes.synsets()
  labels = imagenet_classes.classes(kind)
  names = [synsets[label] for label in labels]
  assert imagenet_classes.labels_of_folders(kind, 'x', names) == list(labels)


def test_the_numbered_folders_of_imagenet_v2_are_labels():
  names = sorted(str(label) for label in range(1000))
  assert names[:3] == ['0', '1', '10']  # Sorted as words they are not.
  labels = imagenet_classes.labels_of_folders('imagenet_v2', 'x', names)
  assert labels == [int(name) for name in names]


@pytest.mark.parametrize(
  'kind, change, words',
  [
    (
      'imagenet_a',
      lambda n: [*n, 'n00000000'],
      "'n00000000' is no class of Im",
    ),
    ('imagenet_a', lambda n: [*n, 'n01440764'], 'no class of the 200 of imag'),
    ('imagenet_a', lambda n: n[1:], r'n01498041 is missing \(199 of 200'),
    ('imagenet_c', lambda n: n[1:], r'n01440764 is missing \(999 of 1000'),
  ],
)
def test_other_folders_are_refused(kind, change, words):
  synsets = imagenet_classes.synsets()
  names = [synsets[label] for label in imagenet_classes.classes(kind)]
  with pytest.raises(errors.DataError, match=f'^/x: .*{words}') as error:
    imagenet_classes.labels_of_folders(kind, '/x', change(names))
  assert '\n' not in str(error.value)
