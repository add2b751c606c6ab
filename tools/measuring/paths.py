"""Paths from images to batches, and the CPU time that they take."""

from collections.abc import Callable, Mapping, Sequence
import functools
import io
import json
import statistics
import time
from typing import Any

import numpy as np
from PIL import Image

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import randomness
from efficientnet_advprop.data import augmentation
from efficientnet_advprop.data import preprocessing
from tools.measuring import input_peers
from tools.measuring import photographs

import tensorflow as tf  # isort: skip

_BATCH = 50
Path = Callable[[int], None]  # Handles n images.
_RATIOS = {
  'autoaugment_over_official': ('autoaugment, official', 'autoaugment'),
  'input_over_official': ('input, official', 'input, augmented view'),
  'input_over_pil': ('input, pillow', 'input, augmented view'),
  'ceiling_over_official': ('input, official', 'input, decoding alone'),
  'two_views': ('input, both views', 'input, plain view'),
}


def dataset_path(items: Sequence, function: Callable) -> Path:
  """Returns a path of `function(item, seed)` in tf.data, on one thread."""
  items = tf.constant(np.stack(items))

  def handle(counter: tf.Tensor) -> tf.Tensor:
    seed = tf.stack([17, tf.cast(counter, tf.int32)])
    return function(items[counter % photographs.NUM_PICTURES], seed)

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
  """Returns a path that runs `function(item)` over the items in Python."""

  def run(count: int) -> None:
    for index in range(count):
      function(items[index % photographs.NUM_PICTURES])

  return run


def input_paths(jpegs: Sequence[bytes], size: int) -> dict[str, Path]:
  """Returns the paths of the input, ours and those of its peers, by name.

  Args:
    jpegs: the images.
    size: height and width of the results, in pixels.
  """
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
  """Runs all paths by turns, after one batch of each to trace and compile.

  Args:
    measured: the paths, by name.
    rounds: how often each one is timed.
    images: how many images a path handles in a round.

  Returns:
    Milliseconds of CPU time per image, by path and round.
  """
  times: dict[str, list[float]] = {name: [] for name in measured}
  for path in measured.values():
    path(_BATCH)
  for index in range(rounds):
    order = list(measured)
    for name in order if index % 2 else order[::-1]:
      start = time.process_time()
      measured[name](images)
      times[name].append((time.process_time() - start) / images * 1e3)
  return times


def report(
  pictures: photographs.Pictures, rounds: int, images: int, size: int
) -> None:
  """Measures the input path, and prints tables and a last line of JSON."""
  times = measure(input_paths(pictures.jpegs, size), rounds, images)
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
  share, free = _ceiling(times)
  result['decoding_share'] = round(share, 3)
  result['free_augmentation_over_official'] = round(free, 3)
  print(
    f'decode alone is {share:.0%} of our time: even free augmentation would'
    f' give {free:.2f} times the official speed'
  )
  print(json.dumps(result))


def _ceiling(times: Mapping[str, Sequence[float]]) -> tuple[float, float]:
  """Returns how far decoding limits the input, from `measure`.

  Returns:
    Decoding's share of our time, and the official time over ours without
    augmentation: medians of ratios within a round.
  """
  ours = times['input, augmented view']
  shares = [a / b for a, b in zip(times['input, decoding alone'], ours)]
  plain = times['input, plain view']
  gains = [a / b for a, b in zip(times['input, official'], plain)]
  return statistics.median(shares), statistics.median(gains)
