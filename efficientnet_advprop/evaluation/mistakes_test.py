import csv

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.data import sources
from efficientnet_advprop.evaluation import evaluator
from efficientnet_advprop.evaluation import mistakes
from efficientnet_advprop.testing import tiny_data

pytestmark = pytest.mark.once

_NAMES = ['ant', 'bee', 'cow']


def _network(images, training=False, domain='main'):
  """Answers by the number of an image, which its red pixels show."""
  red = tf.round((images[:, 0, 0, 0] + 1) * 127.5)
  answer = tf.cast(red, tf.int32) // 2 % 3
  return tf.one_hot(answer, 3) * (red[:, None] + 1)


def _expected(numbers):
  """Labels, answers and probabilities, image by image."""
  found = []
  for n in numbers:
    logits = np.zeros(3)
    logits[n // 2 % 3] = n + 1
    share = np.exp(logits).max() / np.exp(logits).sum()
    found.append((n % 3, n // 2 % 3, share))
  return found


@pytest.fixture(name='config')
def _config(tmp_path):
  tiny_data.write_split(tmp_path, 'validation', [4, 3])
  return tiny_data.config(tmp_path)


@pytest.mark.parametrize('replicas', [1, 2])
def test_every_answer_is_counted_once(config, two_replicas, replicas):
  strategy = tf.distribute.OneDeviceStrategy('CPU:0')
  if replicas == 2:
    strategy = two_replicas
  answers = []
  test = evaluator.Evaluator(config, strategy, _network)
  result = test.evaluate(answers=answers)
  (found,) = answers
  counts = np.zeros([3, 3], int)
  for label, answer, _ in _expected(range(7)):
    counts[label, answer] += 1
  np.testing.assert_array_equal(found.counts, counts)
  right = found.counts.diagonal().sum()
  assert right / 7 == pytest.approx(result['top_1_accuracy'])
  wrong = sorted(
    ((s, label, a) for label, a, s in _expected(range(7)) if label != a),
    reverse=True,
  )
  assert [(m.label, m.answer) for m in found.worst] == [w[1:] for w in wrong]
  np.testing.assert_allclose(
    [m.probability for m in found.worst], [w[0] for w in wrong], rtol=1e-5
  )


def test_the_picture_shows_the_images_of_the_mistakes(config, tmp_path):
  strategy = tf.distribute.OneDeviceStrategy('CPU:0')
  answers = []
  evaluator.Evaluator(config, strategy, _network).evaluate(answers=answers)
  (found,) = answers
  path = tmp_path / 'mistakes.png'
  assert mistakes.draw(str(path), config, found, _NAMES)
  sheet = tf.io.decode_png(path.read_bytes()).numpy()
  for number, mistake in enumerate(found.worst):
    left = 8 + number % 4 * 136
    top = 8 + number // 4 * 164
    tile = sheet[top : top + 128, left : left + 128]
    image_number = round(float(tile[..., 0].mean()))
    assert image_number % 3 == mistake.label
    assert image_number // 2 % 3 == mistake.answer
    assert (sheet[top + 129 : top + 155, left : left + 128] < 100).any()
  found.worst.clear()
  assert not mistakes.draw(str(path), config, found, _NAMES)


def test_only_the_worst_mistakes_are_kept():
  answers = mistakes.Answers(None, 2)
  shares = np.random.default_rng(0).permutation(40) / 40
  for start in range(0, 40, 8):
    rows = [[s, start + i, 0, 1] for i, s in enumerate(shares[start:][:8])]
    answers.add(np.zeros([2, 2]), np.array([rows[:4], rows[4:]]))
  assert [m.probability for m in answers.worst] == [
    n / 40 for n in range(39, 27, -1)
  ]
  assert [shares[m.position] for m in answers.worst] == [
    m.probability for m in answers.worst
  ]


def test_classes_and_pairs_are_ordered(config, tmp_path):
  source = sources.find(config.data, 'validation')
  answers = mistakes.Answers(source, 4)
  answers.add(
    np.array([[8, 2, 0, 0], [5, 5, 0, 0], [0, 0, 4, 0], [0, 0, 0, 0]]),
    np.zeros([1, 12, 4]),
  )
  names = [*_NAMES, 'dog']
  rows = mistakes.class_rows(answers.counts, names)
  assert rows == [('bee', 10, 0.5), ('ant', 10, 0.8), ('cow', 4, 1)]
  pairs = mistakes.confused_pairs(answers.counts, names, 5)
  assert pairs == [('bee', 'ant', 5, 0.5), ('ant', 'bee', 2, 0.2)]
  assert mistakes.confused_pairs(answers.counts, names, 1) == pairs[:1]
  path = tmp_path / 'classes.csv'
  mistakes.write_csv(str(path), answers, names)
  with open(path, encoding='utf-8', newline='') as file:
    assert list(csv.reader(file))[1:] == [
      ['ant', '10', '0.8', 'bee'],
      ['bee', '10', '0.5', 'ant'],
      ['cow', '4', '1', ''],
      ['dog', '0', '', ''],
    ]


def test_names_that_do_not_fit_are_not_used():
  assert mistakes.class_names(_NAMES, 3) == _NAMES
  assert mistakes.class_names(_NAMES, 2) == ['0', '1']
  assert mistakes.class_names(None, 2) == ['0', '1']
