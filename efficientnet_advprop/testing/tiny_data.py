"""Draws tiny data sets for tests.

The red and green of an image are constant and tell which image it is, through
any crop, resize and flip. Its blue is noise, which shows what was done to it.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
import contextlib
import os

import numpy as np
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.data import tfrecords

_SIDE = 12


def encoded_image(index: int, height: int = _SIDE, width: int = _SIDE) -> bytes:
  """The PNG of image number `index`, below 256 * 256."""
  pixels = np.empty([height, width, 3], np.uint8)
  pixels[..., :2] = index % 256, index // 256
  noise = np.random.default_rng(index)
  pixels[..., 2] = noise.integers(0, 256, [height, width])
  return tf.io.encode_png(pixels).numpy()


def indices(images: tf.Tensor) -> list[int]:
  """Which images float32 [batch, height, width, 3] in [-1, 1] shows."""
  pixels = np.round((np.asarray(images) + 1) * 127.5).astype(int)[..., :2]
  assert (pixels == pixels[:, :1, :1]).all()
  return (pixels[:, 0, 0] @ [1, 256]).tolist()


def example(encoded: bytes, label: int) -> bytes:
  """A record of the ImageNet schema; `label` as in the file, from 1."""
  return tfrecords.encode_example(
    {'image/encoded': encoded, 'image/class/label': label}
  )


def write_shard(path: str, examples: Sequence[bytes]) -> None:
  """Writes serialized examples to a TFRecord file."""
  with tf.io.TFRecordWriter(os.fspath(path)) as writer:
    for serialized in examples:
      writer.write(serialized)


def write_split(
  directory: str, split: str, counts: Sequence[int], num_classes: int = 3
) -> list[str]:
  """Writes shards of `counts` images each, numbered from 0 on.

  Image i has the label i % num_classes.

  Returns:
    The paths of the shards.
  """
  paths, index = [], 0
  for shard, count in enumerate(counts):
    name = f'{split}-{shard:05d}-of-{len(counts):05d}'
    numbers = range(index, index + count)
    path = os.path.join(directory, name)
    write_shard(
      path, [example(encoded_image(i), i % num_classes + 1) for i in numbers]
    )
    paths.append(path)
    index += count
  return paths


def config(
  directory: str, batch_size: int = 4, **data: object
) -> config_lib.Config:
  """A run on such a data set of 20 training and 7 validation images."""
  defaults = {
    'dir': os.fspath(directory),
    'num_classes': 3,
    'num_train_images': 20,
    'num_eval_images': 7,
    'augmentation': 'none',
    'eval_crop_padding': 0,
  }
  return config_lib.from_dict(
    {
      'model': {'image_size': 8},
      'data': {**defaults, **data},
      'train': {'batch_size': batch_size, 'seed': 5},
      'eval': {'batch_size': 4},
    }
  )


def write_class_folders(
  directory: str, counts: Mapping[str, int], num_classes: int = 3
) -> None:
  """Writes images as `<split>/class_<label>/<number>.png`.

  Image i of a split has the label i % num_classes.

  Args:
    directory: gets the splits.
    counts: how many images each split holds.
    num_classes: how many class folders each has.
  """
  for split, count in counts.items():
    for index in range(count):
      folder = os.path.join(directory, split, f'class_{index % num_classes}')
      os.makedirs(folder, exist_ok=True)
      with open(os.path.join(folder, f'{index:04d}.png'), 'wb') as file:
        file.write(encoded_image(index))


@contextlib.contextmanager
def counting_listings() -> Iterator[collections.Counter[str]]:
  """Yields how often each folder is listed in the context, by its path."""
  counts: collections.Counter[str] = collections.Counter()
  listdir = tf.io.gfile.listdir

  def counted(path: str) -> list[str]:
    counts[os.fspath(path)] += 1
    return listdir(path)

  tf.io.gfile.listdir = counted
  try:
    yield counts
  finally:
    tf.io.gfile.listdir = listdir
