"""What a network answers for pictures: classes, probabilities, tables."""

from collections.abc import Iterable, Iterator, Sequence
import csv
import io
import itertools
import json
from typing import Any, Callable, NamedTuple, Optional

import numpy as np
import tensorflow as tf

from efficientnet_advprop.evaluation import pictures
from efficientnet_advprop.evaluation import tables

TOP = 5  # How many classes a prediction names, if there are as many.

_BATCH = 32


class Answer(NamedTuple):
  """A class and its probability, a fraction."""

  class_name: str
  probability: float


class Prediction(NamedTuple):
  """What a network answers for a picture.

  Attributes:
    file: the path; for records `<path>:<number>`.
    top: the likeliest classes, up to five, the likeliest first; empty if the
      picture cannot be read.
    problem: why the picture cannot be read; empty if it can.
  """

  file: str
  top: tuple[Answer, ...]
  problem: str = ''

  @property
  def class_name(self) -> Optional[str]:
    """The likeliest class."""
    return self.top[0].class_name if self.top else None

  @property
  def probability(self) -> Optional[float]:
    """The probability of the likeliest class, a fraction."""
    return self.top[0].probability if self.top else None


def predict(
  network: Callable[..., tf.Tensor],
  found: Iterable[pictures.Picture],
  class_names: Optional[Sequence[str]] = None,
) -> Iterator[Prediction]:
  """Classifies pictures in batches.

  Args:
    network: maps float32 [batch, size, size, 3] in [-1, 1] to logits.
    found: the pictures; see `pictures.read`.
    class_names: of the logits, in their order; None for their numbers.

  Yields:
    A prediction for each picture, in their order.
  """

  def classify(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    probabilities = tf.nn.softmax(network(images, training=False))
    count = min(TOP, probabilities.shape[-1])
    return tuple(tf.math.top_k(probabilities, count))

  compiled: Optional[Callable[..., Any]] = None
  stream = iter(found)
  while True:
    batch = list(itertools.islice(stream, _BATCH))
    if not batch:
      return
    readable = [p.pixels for p in batch if p.pixels is not None]
    answers: Iterator[tuple[Answer, ...]] = iter(())
    if readable:
      images = tf.constant(np.stack(readable))
      if compiled is None:
        # A concrete function: a notebook that predicts often, with another
        # function each time, would be warned of it.
        batch_shape = [None, *images.shape[1:]]
        compiled = tf.function(classify).get_concrete_function(
          tf.TensorSpec(batch_shape, tf.float32)
        )
      values, classes = compiled(images)
      answers = (
        _answers(*row, class_names)
        for row in zip(values.numpy(), classes.numpy())
      )
    for picture in batch:
      top = () if picture.pixels is None else next(answers)
      yield Prediction(picture.name, top, picture.problem)


def _answers(
  values: np.ndarray, classes: np.ndarray, names: Optional[Sequence[str]]
) -> tuple[Answer, ...]:
  return tuple(
    Answer(names[number] if names else str(number), float(value))
    for value, number in zip(values, classes)
  )


def as_table(found: Sequence[Prediction]) -> str:
  """Formats predictions for people: file, class, probability, other classes."""
  rows = []
  for prediction in found:
    if prediction.problem:
      rows.append((prediction.file, '-', '', prediction.problem))
      continue
    others = ', '.join(
      f'{answer.class_name} {100 * answer.probability:.1f}'
      for answer in prediction.top[1:]
    )
    first = prediction.top[0]
    share = f'{100 * first.probability:.1f}'
    rows.append((prediction.file, first.class_name, share, others))
  header = 'file', 'class', '%', 'then, %'
  return tables.format_table(header, rows, left=(0, 1, 3))


def csv_header() -> str:
  """The first line of the CSV form."""
  others = [f'{what}_{n}' for n in range(2, TOP + 1) for what in _COLUMNS]
  return _csv_line(['file', *_COLUMNS, *others, 'problem'])


_COLUMNS = 'class', 'probability'


def as_csv(prediction: Prediction) -> str:
  """Formats a prediction as a line of CSV; see `csv_header`."""
  cells: list[Any] = [prediction.file]
  for answer in prediction.top:
    cells += [answer.class_name, f'{answer.probability:.6g}']
  cells += [''] * (1 + 2 * TOP - len(cells))
  return _csv_line([*cells, prediction.problem])


def _csv_line(cells: Sequence[Any]) -> str:
  line = io.StringIO()
  csv.writer(line, lineterminator='\n').writerow(cells)
  return line.getvalue()


def as_json(prediction: Prediction) -> str:
  """Formats a prediction as a line of JSON."""
  values: dict[str, Any] = {'file': prediction.file}
  if prediction.problem:
    values['problem'] = prediction.problem
  else:
    values['class'] = prediction.class_name
    values['probability'] = prediction.probability
    values['top'] = [
      {'class': answer.class_name, 'probability': answer.probability}
      for answer in prediction.top
    ]
  return json.dumps(values, ensure_ascii=False) + '\n'
