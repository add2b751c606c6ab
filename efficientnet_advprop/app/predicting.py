"""The mode `predict`: what a network answers for pictures."""

from collections.abc import Iterable, Iterator, Sequence
import contextlib
import dataclasses
import os
from typing import IO, Any, NamedTuple, Optional, Union

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import networks
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import files
from efficientnet_advprop.base import paths
from efficientnet_advprop.base import progress
from efficientnet_advprop.evaluation import imagenet_classes
from efficientnet_advprop.evaluation import pictures
from efficientnet_advprop.evaluation import predictions

_CSV, _JSON_LINES = '.csv', '.jsonl'


class Result(NamedTuple):
  """What a call has found.

  Attributes:
    text: for the user: a table, or where the output is.
    unreadable: how many pictures could not be read.
  """

  text: str
  unreadable: int

  @property
  def exit_code(self) -> int:
    """0, or `EXIT_INCOMPLETE` if a picture could not be read."""
    return errors.EXIT_INCOMPLETE if self.unreadable else 0


def run(
  config: config_lib.Config,
  model_dir: str,
  inputs: Sequence[str],
  output: Optional[str] = None,
) -> Result:
  """Classifies pictures by `eval.network`, or by the network of a run.

  A picture that cannot be read is logged as a warning, and the others are
  classified all the same.

  Args:
    config: of the run.
    model_dir: of the run.
    inputs: pictures, folders, patterns or TFRecord files; see `pictures.find`.
    output: a file that ends in `.csv`, or in `.jsonl` for a JSON object a line,
      which appears when it is whole; None for a table.

  Raises:
    CheckpointError, ConfigError, ExportError: see `networks.open_network`.
    ConfigError: there is no input, or the output is of another kind.
    DataError: an input names nothing.
  """
  if not inputs:
    allowed = 'a picture, a folder, a pattern, or TFRecords'
    raise config_lib.ConfigError('input', '', allowed)
  if output is not None and not output.endswith((_CSV, _JSON_LINES)):
    allowed = f'a file that ends in {_CSV} or {_JSON_LINES}'
    raise config_lib.ConfigError('output', output, allowed)
  found = pictures.find(inputs)
  network = networks.open_network(
    config, tf.distribute.OneDeviceStrategy(_first_device()), model_dir
  )
  shown = progress.Progress('predicting')
  stream = predictions.predict(
    network.call,
    pictures.read(found, config.data, network.image_size),
    network.class_names,
  )
  stream = _watched(stream, shown, len(found))
  if output is None:
    answers = list(stream)
    text = predictions.as_table(answers)
    unreadable = sum(bool(answer.problem) for answer in answers)
  else:
    count, unreadable = _write(output, stream)
    text = f'{count} predictions  {output}'
  if unreadable:
    text += f'\nNot readable: {unreadable}'
  return Result(text, unreadable)


def predict(
  network: Any,
  inputs: Union[str, Sequence[str]],
  class_names: Optional[Sequence[str]] = None,
  pixels: Optional[str] = None,
) -> list[predictions.Prediction]:
  """Classifies pictures, for notebooks and other projects.

  Args:
    network: the model_dir of a run, the folder of an exported version, a TFLite
      or ONNX file, or what else `eval.network` takes; or a network of
      `build_model` or `load_model`.
    inputs: pictures, folders, patterns or TFRecord files, or one of these.
    class_names: of the logits, in their order; None for those that the run or
      the files of the network state, or else the numbers of the classes.
    pixels: what an ONNX or .keras file from elsewhere takes; see `eval.pixels`.

  Returns:
    A prediction for each picture: `file`, `class_name`, `probability`, `top`,
    the likeliest classes, and `problem`, which is empty unless the picture
    cannot be read.

  Raises:
    DataError: an input names nothing.
    CheckpointError, ConfigError, ExportError: the network cannot be opened.
  """
  found = pictures.find([inputs] if isinstance(inputs, str) else list(inputs))
  data = config_lib.DataConfig()
  if isinstance(network, str):
    config = _config_of(network, pixels)
    opened = networks.open_network(
      config, tf.distribute.OneDeviceStrategy(_first_device()), network
    )
    call, size, data = opened.call, opened.image_size, config.data
    class_names = class_names or opened.class_names
  else:
    class_names = class_names or getattr(network, 'class_names', None)
    call = getattr(network, 'network', network)
    size = call.model_config.image_size
  stream = pictures.read(found, data, size)
  return list(predictions.predict(call, stream, class_names))


def _config_of(network: str, pixels: Optional[str]) -> config_lib.Config:
  """The settings of a run, or else those that open another network."""
  saved = os.path.join(network, paths.CONFIG)
  if tf.io.gfile.exists(saved):
    config = config_lib.load_config(saved)
    changed = dataclasses.replace(config.eval, network=None)
  else:
    # Of published weights; all other files say how many classes they have.
    data = {'num_classes': len(imagenet_classes.synsets())}
    config = config_lib.from_dict({'data': data})
    changed = dataclasses.replace(config.eval, network=network, pixels=pixels)
  return dataclasses.replace(config, eval=changed)


def _first_device() -> str:
  gpus = tf.config.list_logical_devices('GPU')
  return gpus[0].name if gpus else 'CPU:0'


def _watched(
  stream: Iterable[predictions.Prediction],
  shown: progress.Progress,
  total: int,
) -> Iterator[predictions.Prediction]:
  """Logs unreadable pictures and the progress; records may add to the total."""
  for number, prediction in enumerate(stream, 1):
    if prediction.problem:
      logging.warning('%s: %s', prediction.file, prediction.problem)
    shown(number, max(total, number + 1))
    yield prediction


def _write(
  output: str, stream: Iterable[predictions.Prediction]
) -> tuple[int, int]:
  """Writes predictions; returns their number and that of unreadable ones."""
  count = unreadable = 0
  with contextlib.ExitStack() as stack:
    temporary = stack.enter_context(files.whole(output))
    file: IO[str] = stack.enter_context(tf.io.gfile.GFile(temporary, 'w'))
    is_csv = output.endswith(_CSV)
    if is_csv:
      file.write(predictions.csv_header())
    for prediction in stream:
      line = predictions.as_csv if is_csv else predictions.as_json
      file.write(line(prediction))
      count += 1
      unreadable += bool(prediction.problem)
  return count, unreadable
