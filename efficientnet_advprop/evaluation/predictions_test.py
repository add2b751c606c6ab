import csv
import json

import numpy as np
import tensorflow as tf

from efficientnet_advprop.evaluation import pictures
from efficientnet_advprop.evaluation import predictions

_NAMES = [f'class, "{n}"' for n in range(7)]
_WEIGHTS = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)


def _network(images, training):
  assert not training
  return tf.reduce_mean(images, [1, 2]) @ _WEIGHTS


def _pictures(count, unreadable):
  """Pictures of one colour each."""
  rng = np.random.default_rng(1)
  for index in range(count):
    color = rng.uniform(-1, 1, 3).astype(np.float32)
    pixels = np.broadcast_to(color, [4, 4, 3])
    if index in unreadable:
      yield pictures.Picture(f'{index}', None, 'cannot be read')
    else:
      yield pictures.Picture(f'{index}', pixels)


def _expected(picture):
  """Classes and probabilities, the likeliest first."""
  logits = picture.pixels[0, 0].astype(np.float64) @ _WEIGHTS
  shares = np.exp(logits) / np.exp(logits).sum()
  order = np.argsort(-shares)[:5]
  return order, shares[order]


def test_every_picture_has_its_answer():
  """In several batches, one of which has no picture that can be read."""
  unreadable = {0, 31, *range(32, 64), 70}
  given = list(_pictures(75, unreadable))
  found = list(predictions.predict(_network, given, _NAMES))
  assert [answer.file for answer in found] == [p.name for p in given]
  for index, (picture, prediction) in enumerate(zip(given, found)):
    if index in unreadable:
      assert (prediction.top, prediction.problem) == ((), 'cannot be read')
      assert prediction.class_name is prediction.probability is None
      continue
    order, shares = _expected(picture)
    assert [a.class_name for a in prediction.top] == [_NAMES[n] for n in order]
    np.testing.assert_allclose(
      [answer.probability for answer in prediction.top], shares, atol=1e-6
    )
    assert prediction.class_name == prediction.top[0].class_name
    assert prediction.probability == prediction.top[0].probability
  (numbered,) = predictions.predict(_network, given[1:2])
  assert numbered.class_name == str(_expected(given[1])[0][0])


def test_fewer_classes_than_five_are_all_named():
  def network(images, training):
    return _network(images, training)[:, :2]

  (found,) = predictions.predict(network, _pictures(1, ()))
  assert sorted(answer.class_name for answer in found.top) == ['0', '1']


_TOP = tuple(
  predictions.Answer(name, share)
  for name, share in ((_NAMES[3], 0.75), ('ü', 0.125), ('c', 0.0625))
)
_FOUND = [
  predictions.Prediction('a, "b".jpg', _TOP),
  predictions.Prediction('cut.jpg', (), 'cannot be decoded (9 bytes)'),
]


def test_csv_is_read_back():
  lines = predictions.csv_header() + ''.join(map(predictions.as_csv, _FOUND))
  first, second = csv.DictReader(lines.splitlines())
  assert first['file'] == 'a, "b".jpg' and first['class'] == _NAMES[3]
  assert (first['class_2'], first['probability_3']) == ('ü', '0.0625')
  assert first['class_4'] == first['probability_5'] == first['problem'] == ''
  assert second.pop('file') == 'cut.jpg'
  assert second.pop('problem') == 'cannot be decoded (9 bytes)'
  assert set(second.values()) == {''}


def test_json_is_read_back():
  first, second = (json.loads(predictions.as_json(p)) for p in _FOUND)
  assert first == {
    'file': 'a, "b".jpg',
    'class': _NAMES[3],
    'probability': 0.75,
    'top': [
      {'class': a.class_name, 'probability': a.probability} for a in _TOP
    ],
  }
  problem = 'cannot be decoded (9 bytes)'
  assert second == {'file': 'cut.jpg', 'problem': problem}
  assert predictions.as_json(_FOUND[0]).count('\n') == 1


def test_a_table_is_for_people():
  lines = predictions.as_table(_FOUND).splitlines()
  assert lines[2:] == [
    'a, "b".jpg  class, "3"  75.0  ü 12.5, c 6.2',
    'cut.jpg     -                 cannot be decoded (9 bytes)',
  ]
