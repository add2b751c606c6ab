"""Measures the input path against the official tf.data code and Pillow.

Every path runs on one thread; figures are milliseconds of CPU time per image
and ratios of CPU time, taken within one round and then the median over rounds,
because absolute rates drift. The last line is JSON:

  autoaugment_over_official  official time / ours, AutoAugment v0 alone
  input_over_official        official time / ours, JPEG to augmented image
  input_over_pil             Pillow's time / ours, JPEG to augmented image
  ceiling_over_official      official time / decoding our crop and nothing else
  two_views                  time of the plain and the augmented view from one
                             decode / time of the plain view alone

The first three are better when larger, the last when smaller. The ceiling is
what no input path can pass that decodes by TensorFlow's JPEG kernel. The file
tools/measuring/input_peers.py describes the peers.

--pictures names the images: `photographs`, crops of the two photographs that
come with scikit-learn (an optional install) as JPEGs of 500 x 400 pixels;
`noise` of that size with the spectrum of photographs; or a folder of TFRecords
or class folders, whose first JPEGs are taken as they are.

  .venv/bin/python tools/benchmark_input.py --quick --pictures=noise
"""

from collections.abc import Callable, Sequence
import functools
import importlib.util
import io
import json
import os
import statistics
import sys
import time
from typing import Any, NamedTuple

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import app
from absl import flags
import numpy as np
from PIL import Image
import tensorflow as tf

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import program
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import randomness
from efficientnet_advprop.data import augmentation
from efficientnet_advprop.data import preprocessing
from efficientnet_advprop.data import records
from efficientnet_advprop.data import sources
from tools.measuring import input_peers

_PICTURES = 16
_WIDTH, _HEIGHT = 500, 400
_BATCH = 50
Path = Callable[[int], None]  # Handles so many images.


class Pictures(NamedTuple):
  """What is measured on: a name for the report, and JPEGs."""

  name: str
  jpegs: list[bytes]


def default_pictures() -> str:
  """Returns `photographs`, or `noise` without scikit-learn."""
  return 'photographs' if importlib.util.find_spec('sklearn') else 'noise'


def find_pictures(name: str) -> Pictures:
  """Returns the pictures that --pictures names.

  Raises:
    DataError: the folder holds too few JPEGs, or scikit-learn is missing.
  """
  if name == 'noise':
    rng = np.random.default_rng(0)
    drawn = [jpeg(_drawn(rng)) for _ in range(_PICTURES)]
    return Pictures('drawn noise, 500 x 400', drawn)
  if name == 'photographs':
    jpegs = [jpeg(picture) for picture in photographs()]
    return Pictures("crops of scikit-learn's photographs, 500 x 400", jpegs)
  data = config_lib.DataConfig(dir=name)
  try:
    source = sources.find_set(data, 'train')
  except sources.MissingSplitError:
    source = sources.find_set(data, 'validation')
  files = tf.data.Dataset.range(len(source.files))
  found: list[bytes] = []
  for record in records.read(source, files):
    encoded, _ = records.image_and_label(source, record)
    if tf.io.is_jpeg(encoded):
      found.append(encoded.numpy())
    if len(found) == _PICTURES:
      return Pictures(f'{_PICTURES} JPEGs of {name}', found)
  raise errors.DataError(f'{name}: {len(found)} JPEGs of {_PICTURES}')


def photographs() -> list[np.ndarray]:
  """Returns uint8 pictures [400, 500, 3], cut from two photographs."""
  rng = np.random.default_rng(0)
  try:
    from sklearn import datasets
  except ImportError:
    raise errors.DataError(
      '--pictures=photographs: needs the package scikit-learn'
    ) from None
  pictures = []
  for index in range(_PICTURES):
    picture = datasets.load_sample_images().images[index % 2]
    top = rng.integers(picture.shape[0] - _HEIGHT + 1)
    left = rng.integers(picture.shape[1] - _WIDTH + 1)
    pictures.append(picture[top : top + _HEIGHT, left : left + _WIDTH])
  return pictures


def _drawn(rng: np.random.Generator) -> np.ndarray:
  """Noise whose spectrum falls as 1/f, like that of photographs."""
  y = np.fft.fftfreq(_HEIGHT)[:, np.newaxis, np.newaxis]
  x = np.fft.fftfreq(_WIDTH)[np.newaxis, :, np.newaxis]
  spectrum = np.fft.fft2(rng.normal(size=(_HEIGHT, _WIDTH, 3)), axes=(0, 1))
  spectrum /= np.maximum(np.hypot(x, y), 1 / _WIDTH)
  values = np.fft.ifft2(spectrum, axes=(0, 1)).real
  values = (values - values.mean()) / values.std()
  return np.clip(128 + 60 * values, 0, 255).astype(np.uint8)


def jpeg(picture: np.ndarray) -> bytes:
  """The JPEG of uint8 [height, width, 3]."""
  buffer = io.BytesIO()
  Image.fromarray(picture).save(buffer, 'JPEG', quality=92)
  return buffer.getvalue()


def dataset_path(items: Sequence, function: Callable) -> Path:
  """Runs `function(item, seed)` over the items in tf.data on one thread."""
  items = tf.constant(np.stack(items))

  def handle(counter: tf.Tensor) -> tf.Tensor:
    seed = tf.stack([17, tf.cast(counter, tf.int32)])
    return function(items[counter % _PICTURES], seed)

  dataset = tf.data.Dataset.range(2**31 - 1)
  dataset = dataset.map(tf.autograph.experimental.do_not_convert(handle))
  options = tf.data.Options()
  options.autotune.enabled = False
  # They prefetch a batch, which the next path measured would pay for.
  options.experimental_optimization.apply_default_optimizations = False
  options.threading.private_threadpool_size = 1
  options.threading.max_intra_op_parallelism = 1
  dataset = dataset.batch(_BATCH)
  # What the network takes: ours stays uint8 up to here.
  dataset = dataset.map(
    lambda *views: [tf.cast(view, tf.float32) for view in views]
  )
  iterator = iter(dataset.with_options(options))

  def run(count: int) -> None:
    for _ in range(count // _BATCH):
      next(iterator)

  return run


def loop_path(items: Sequence, function: Callable) -> Path:
  """Runs `function(item)` over the items in Python."""

  def run(count: int) -> None:
    for index in range(count):
      function(items[index % _PICTURES])

  return run


def paths(jpegs: Sequence[bytes], size: int) -> dict[str, Path]:
  """Returns what is measured, by name."""
  config = config_lib.DataConfig()
  small = [
    np.array(
      Image.open(io.BytesIO(encoded)).convert('RGB').resize((size, size))
    )
    for encoded in jpegs
  ]
  small_pillow = [Image.fromarray(picture) for picture in small]

  def decode(encoded: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    shape = tf.io.extract_jpeg_shape(encoded)
    crop_seed = randomness.fold(seed, randomness.CROP)
    box = preprocessing.random_box(shape, crop_seed, size, config)
    return tf.io.decode_and_crop_jpeg(encoded, box, channels=3)[0, 0]

  def crop(encoded: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    shape = preprocessing.image_shape(encoded)
    return preprocessing.training_image(encoded, shape, seed, size, config)

  def one_view(encoded: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    image = crop(encoded, seed)
    return preprocessing.augment(image, seed, config)

  def two_views(encoded: tf.Tensor, seed: tf.Tensor) -> tuple:
    image = crop(encoded, seed)
    return image, preprocessing.augment(image, seed, config)

  return {
    'autoaugment': dataset_path(small, augmentation.autoaugment),
    'autoaugment, official': dataset_path(
      small, lambda image, _: input_peers.official_autoaugment(image)
    ),
    'autoaugment, pillow': loop_path(
      small_pillow, input_peers.pillow_autoaugment
    ),
    'input, decoding alone': dataset_path(jpegs, decode),
    'input, plain view': dataset_path(jpegs, crop),
    'input, augmented view': dataset_path(jpegs, one_view),
    'input, both views': dataset_path(jpegs, two_views),
    'input, official': dataset_path(
      jpegs, lambda item, _: input_peers.official_image(item, size)
    ),
    'input, pillow': loop_path(
      jpegs, functools.partial(input_peers.pillow_image, size=size)
    ),
  }


def measure(
  measured: dict[str, Path], rounds: int, images: int
) -> dict[str, list[float]]:
  """Milliseconds of CPU time per image, by path and round."""
  times: dict[str, list[float]] = {name: [] for name in measured}
  for path in measured.values():
    path(_BATCH)  # Traces and compiles.
  for index in range(rounds):
    order = list(measured)
    for name in order if index % 2 else order[::-1]:
      start = time.process_time()
      measured[name](images)
      times[name].append((time.process_time() - start) / images * 1e3)
  return times


_RATIOS = {
  'autoaugment_over_official': ('autoaugment, official', 'autoaugment'),
  'input_over_official': ('input, official', 'input, augmented view'),
  'input_over_pil': ('input, pillow', 'input, augmented view'),
  'ceiling_over_official': ('input, official', 'input, decoding alone'),
  'two_views': ('input, both views', 'input, plain view'),
}


def run(pictures: Pictures, rounds: int, images: int, size: int) -> None:
  """Measures, and prints tables and a last line of JSON."""
  times = measure(paths(pictures.jpegs, size), rounds, images)
  print(f'TensorFlow {tf.__version__}, pictures: {pictures.name}')
  print(f'{rounds} rounds of {images} images, {size} pixels')
  print(f'{"ms of CPU per image":28}{"median":>8}{"least":>8}{"most":>8}')
  for name, values in times.items():
    middle, low, high = statistics.median(values), min(values), max(values)
    print(f'{name:28}{middle:8.3f}{low:8.3f}{high:8.3f}')
  result: dict[str, Any] = {'pictures': pictures.name}
  print(f'{"ratio":28}{"median":>8}{"least":>8}{"most":>8}')
  for name, (over, under) in _RATIOS.items():
    ratios = [a / b for a, b in zip(times[over], times[under])]
    result[name] = round(statistics.median(ratios), 3)
    print(f'{name:28}{result[name]:8.2f}{min(ratios):8.2f}{max(ratios):8.2f}')
  print(json.dumps(result))


def main(_: Sequence[str]) -> None:
  """Reads the flags."""
  tf.config.threading.set_inter_op_parallelism_threads(1)
  tf.config.threading.set_intra_op_parallelism_threads(1)
  values = flags.FLAGS
  rounds, images = (5, 100) if values.quick else (values.rounds, 400)
  try:
    pictures = find_pictures(values.pictures or default_pictures())
  except errors.UserError as error:
    program.fail('benchmark_input', error)
  run(pictures, rounds, images, values.image_size)


if __name__ == '__main__':
  flags.DEFINE_bool('quick', False, 'Fewer rounds: a look in a minute.')
  flags.DEFINE_string(
    'pictures',
    '',
    '`photographs`, `noise`, or a folder of images. Default: photographs, or'
    ' noise where scikit-learn is not installed.',
  )
  flags.DEFINE_integer('image_size', 224, 'Pixels.', 32)
  flags.DEFINE_integer('rounds', 15, 'Rounds over all paths.', 1)
  app.run(main, flags_parser=program.parser('benchmark_input', flags.FLAGS))
