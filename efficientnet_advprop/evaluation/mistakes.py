"""Which classes a network confuses, and its worst mistakes as a picture.

A mistake is the worse the surer the network is of its wrong answer.
"""

from collections.abc import Mapping, Sequence
import csv
import io
from typing import NamedTuple, Optional

import numpy as np
from PIL import Image
from PIL import ImageDraw
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import files
from efficientnet_advprop.data import bad_records
from efficientnet_advprop.data import ordering
from efficientnet_advprop.data import preprocessing
from efficientnet_advprop.data import records

NUM_WORST = 12  # Mistakes in the picture.

_COLUMNS = 4
_MIN_TILE = 128  # Smaller images are enlarged to as many pixels or more.
_MARGIN, _CAPTION = 8, 28  # Pixels between tiles, and under each.


class Mistake(NamedTuple):
  """An image that is classified wrongly.

  Attributes:
    probability: of the wrong answer, a fraction.
    position: of the image in the order of reading.
    label: its class.
    answer: the class that the network takes it for.
  """

  probability: float
  position: int
  label: int
  answer: int


def batch_answers(
  logits: tf.Tensor, batch: Mapping[str, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
  """Counts the answers of a batch, and finds its worst mistakes.

  Args:
    logits: float32 [batch, classes].
    batch: `label` and `position`, int32 [batch], and `weight`, float32 [batch],
      1 for an image and 0 for padding.

  Returns:
    float32 [classes, classes], the number of images by label and answer; and
    float32 [k, 4], the fields of `Mistake`, with the probability 0 in rows that
    are no mistake. k is `NUM_WORST`, or the batch if that is smaller.
  """
  classes = logits.shape[-1]
  labels, weights = batch['label'], batch['weight']
  answers = tf.argmax(logits, -1, tf.int32)
  places = tf.stack([labels, answers], -1)
  counts = tf.scatter_nd(places, weights, [classes, classes])
  shares = tf.reduce_max(tf.nn.softmax(logits), -1)
  shares = tf.where(labels != answers, shares * weights, 0.0)
  top, rows = tf.math.top_k(shares, min(NUM_WORST, logits.shape[0]))
  fields = [batch['position'], labels, answers]
  found = [tf.cast(tf.gather(field, rows), tf.float32) for field in fields]
  return counts, tf.stack([top, *found], -1)


class Answers:
  """The answers to all images of a test.

  Attributes:
    counts: int64 [classes, classes], the number of images by label and answer.
    worst: the worst mistakes, the worst first, at most `NUM_WORST`.
    source: of the images.
  """

  def __init__(self, source: records.Source, num_classes: int):
    self.source = source
    self.counts = np.zeros([num_classes, num_classes], np.int64)
    self.worst: list[Mistake] = []

  def add(self, counts: np.ndarray, rows: np.ndarray) -> None:
    """Adds what `batch_answers` found in a batch, or in parts of it.

    Args:
      counts: [classes, classes].
      rows: [..., 4].
    """
    self.counts += np.rint(counts).astype(np.int64)
    found = [
      Mistake(float(row[0]), *(int(value) for value in row[1:]))
      for row in rows.reshape([-1, 4])
      if row[0] > 0
    ]
    ordered = sorted([*self.worst, *found], key=lambda m: (-m[0], m[1]))
    self.worst = ordered[:NUM_WORST]


class ClassRow(NamedTuple):
  """How the images of a class are answered; accuracy is a fraction."""

  name: str
  images: int
  accuracy: float


class Pair(NamedTuple):
  """Images of one class that are taken for another; share is a fraction."""

  label: str
  answer: str
  images: int
  share: float


def class_rows(counts: np.ndarray, names: Sequence[str]) -> list[ClassRow]:
  """Returns the classes that have images, the least accurate first."""
  totals, right = counts.sum(1), counts.diagonal()
  found = [
    ClassRow(names[label], int(totals[label]), right[label] / totals[label])
    for label in np.flatnonzero(totals).tolist()
  ]
  return sorted(found, key=lambda row: row.accuracy)


def confused_pairs(
  counts: np.ndarray, names: Sequence[str], limit: int
) -> list[Pair]:
  """Returns the pairs of classes that are confused most often."""
  wrong = counts - np.diag(counts.diagonal())
  order = np.argsort(-wrong, axis=None, kind='stable')[:limit]
  pairs = []
  for label, answer in zip(*np.unravel_index(order, wrong.shape)):
    images = int(wrong[label, answer])
    if images:
      share = images / counts[label].sum()
      pairs.append(Pair(names[label], names[answer], images, share))
  return pairs


def write_csv(path: str, answers: Answers, names: Sequence[str]) -> None:
  """Writes all classes: name, images, accuracy, the most frequent mistake."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(['class', 'images', 'accuracy', 'most_confused_with'])
  totals = answers.counts.sum(1)
  for label, row in enumerate(answers.counts):
    wrong = row.copy()
    wrong[label] = 0
    other = names[int(wrong.argmax())] if wrong.any() else ''
    accuracy = f'{row[label] / totals[label]:.6g}' if totals[label] else ''
    writer.writerow([names[label], totals[label], accuracy, other])
  files.write(path, text.getvalue())


def draw(
  path: str,
  config: config_lib.Config,
  answers: Answers,
  names: Sequence[str],
) -> bool:
  """Draws the worst mistakes, each over its label and the network's answer.

  Args:
    path: of the PNG file.
    config: of the run; images are prepared as for evaluation.
    answers: of the network.
    names: of the classes.

  Returns:
    Whether there was any mistake to be drawn.

  Raises:
    DataError: the images cannot be read again.
  """
  if not answers.worst:
    return False
  found = _images(config, answers.source, [m.position for m in answers.worst])
  size = next(iter(found.values())).shape[0]
  scale = -(-_MIN_TILE // size)
  side = size * scale
  lines = -(-len(answers.worst) // _COLUMNS)
  sheet = Image.new(
    'RGB',
    (
      _COLUMNS * (side + _MARGIN) + _MARGIN,
      lines * (side + _CAPTION + _MARGIN) + _MARGIN,
    ),
    'white',
  )
  pen = ImageDraw.Draw(sheet)
  for number, mistake in enumerate(answers.worst):
    left = _MARGIN + number % _COLUMNS * (side + _MARGIN)
    top = _MARGIN + number // _COLUMNS * (side + _CAPTION + _MARGIN)
    tile = found[mistake.position].repeat(scale, 0).repeat(scale, 1)
    sheet.paste(Image.fromarray(tile), (left, top))
    share = f'{100 * mistake.probability:.0f}%'
    width = side // 6 - len(share) - 1  # A letter is 6 pixels wide.
    pen.text((left, top + side + 1), f'is {names[mistake.label]}', 'black')
    answer = f'seen as {names[mistake.answer]}'[:width]
    pen.text((left, top + side + 14), f'{answer} {share}', 'red')
  pixels = np.asarray(sheet)
  files.write(path, tf.io.encode_png(pixels).numpy())
  return True


def _images(
  config: config_lib.Config, source: records.Source, positions: Sequence[int]
) -> dict[int, np.ndarray]:
  """Reads some images again: uint8 [size, size, 3] by their positions."""
  wanted = tf.constant(positions, tf.int64)

  def prepare(record: records.Record) -> tuple[tf.Tensor, tf.Tensor]:
    encoded, shape, _ = records.parse(source, preprocessing.image_shape, record)
    if source.side is not None:
      image = preprocessing.stored_image(encoded, source.side)
    else:
      image = preprocessing.evaluation_image(
        encoded, config.model.image_size, config.data.eval_crop_padding, shape
      )
    return record['position'], tf.cast(tf.round(image), tf.uint8)

  stream = ordering.evaluation_order(
    source, ordering.place(None, 1, 'eval.batch_size')
  )
  chosen = stream.filter(lambda r: tf.reduce_any(r['position'] == wanted))
  images = chosen.take(len(positions)).map(prepare)
  with bad_records.data_errors():
    return {int(n): image for n, image in images.as_numpy_iterator()}


def class_names(
  names: Optional[Sequence[str]], num_classes: int
) -> Sequence[str]:
  """Returns the names, or the numbers of the classes if they do not fit."""
  if names is not None and len(names) == num_classes:
    return names
  return [str(number) for number in range(num_classes)]
