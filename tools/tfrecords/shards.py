"""Writes a TFRecord shard of images in the official ImageNet schema."""

from collections.abc import Sequence
import os
from typing import Any, NamedTuple, Union

import tensorflow as tf

from efficientnet_advprop.base import files
from efficientnet_advprop.data import tfrecords
from tools.tfrecords import image_listing
from tools.tfrecords import image_repair
from tools.tfrecords import workers


class ShardTask(NamedTuple):
  """A shard to write: its path, its images in order, the split's classes."""

  number: int
  path: str
  images: Sequence[image_listing.Image]
  classes: Sequence[str]


def write_shard(task: ShardTask) -> dict[str, Any]:
  """Writes a shard under a temporary name, then renames it.

  Returns:
    Values for JSON: `bytes` of the file, the number of images `written` and
    `repaired`, the number of `repairs` by kind, and the `unreadable` files:
    class, path, reason.
  """
  labels = {name: label for label, name in enumerate(task.classes, 1)}
  repairs: dict[str, int] = {}
  unreadable: list[list[str]] = []
  repaired = 0
  unfinished = files.temporary_name(task.path)
  with tf.io.TFRecordWriter(unfinished) as writer:
    for image in task.images:
      try:
        prepared = image_repair.prepare(image.read())
      except image_repair.UnreadableError as error:
        unreadable.append([image.class_name, image.path, str(error)])
      else:
        label = labels[image.class_name]
        writer.write(serialized(image, label, prepared))
        repaired += bool(prepared.repairs)
        for kind in prepared.repairs:
          repairs[kind] = repairs.get(kind, 0) + 1
      workers.count_image()
  os.replace(unfinished, task.path)
  return {
    'bytes': os.path.getsize(task.path),
    'written': len(task.images) - len(unreadable),
    'repaired': repaired,
    'repairs': repairs,
    'unreadable': unreadable,
  }


def serialized(
  image: image_listing.Image, label: int, prepared: image_repair.Prepared
) -> bytes:
  """Returns a tf.Example in the schema of the official ImageNet script.

  Args:
    image: what is written.
    label: of its class, from 1.
    prepared: its pixels as an RGB JPEG.
  """
  values: dict[str, Union[int, str, bytes]] = {
    'image/encoded': prepared.jpeg,
    'image/class/label': label,
    'image/class/synset': image.class_name,
    'image/class/text': image.class_name,
    'image/height': prepared.height,
    'image/width': prepared.width,
    'image/channels': 3,
    'image/colorspace': 'RGB',
    'image/format': 'JPEG',
    'image/filename': image.name,
  }
  return tfrecords.encode_example(values)
