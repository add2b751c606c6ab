import io
import struct

import numpy as np
from PIL import Image
from PIL import ImageOps
import tensorflow as tf

from efficientnet_advprop.data import orientation
from efficientnet_advprop.data import preprocessing

_TAG = 0x0112


def _picture(height=40, width=56):
  """A picture whose corners differ, smooth enough for JPEG."""
  rows, columns = np.mgrid[:height, :width]
  red = 255 * rows / height
  green = 255 * columns / width
  blue = 255 * (rows > height // 2) * (columns > width // 2)
  return np.stack([red, green, blue], -1).astype(np.uint8)


def _exif(value, order='>', kind=3, tags=2):
  """Exif data with other tags before the orientation."""
  entries = [
    struct.pack(order + 'HHII', 0x100 + i, 4, 1, i) for i in range(tags)
  ]
  entries.append(struct.pack(order + 'HHIHH', _TAG, kind, 1, value, 0))
  mark = b'MM\0*' if order == '>' else b'II*\0'
  head = mark + struct.pack(order + 'IH', 8, len(entries))
  return b'Exif\0\0' + head + b''.join(entries) + bytes(4)


def _segment(mark, content):
  return bytes([0xFF, mark]) + struct.pack('>H', len(content) + 2) + content


def _jpeg(*segments, jfif=True):
  """A JPEG with segments of its own after the header."""
  encoded = tf.io.encode_jpeg(_picture(), quality=95).numpy()
  assert encoded[2:4] == b'\xff\xe0'
  head = encoded[:20] if jfif else encoded[:2]
  return head + b''.join(segments) + encoded[20:]


def _found(files):
  """What is found in each file, inside tf.data; a few of them eagerly, too."""
  dataset = tf.data.Dataset.from_tensor_slices(files)
  found = list(dataset.map(orientation.of_jpeg).as_numpy_iterator())
  for file, value in list(zip(files, found))[::5]:
    assert int(orientation.of_jpeg(tf.constant(file))) == value
  return [int(value) for value in found]


def test_the_tag_is_read():
  expected = [value for value in range(1, 9) for _ in range(4)]
  files = [
    _jpeg(_segment(0xE1, _exif(value, order)), jfif=jfif)
    for value in range(1, 9)
    for order in '<>'
    for jfif in (True, False)
  ]
  assert _found(files) == expected
  for file, value in zip(files, expected):
    assert Image.open(io.BytesIO(file)).getexif()[_TAG] == value


def test_the_tag_is_found_behind_other_segments():
  others = (
    _segment(0xFE, b'a comment'),
    _segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x/>'),
    _segment(0xE2, b'ICC_PROFILE\0' + bytes(60_000)),
  )
  files = [_jpeg(*others, _segment(0xE1, _exif(6))), _jpeg(*others)]
  assert _found(files) == [6, 1]


def test_what_is_missing_or_damaged_means_upright():
  files = [
    _jpeg(),
    _jpeg(jfif=False),
    _jpeg(_segment(0xE1, _exif(0))),
    _jpeg(_segment(0xE1, _exif(9))),
    _jpeg(_segment(0xE1, _exif(6, kind=2))),
    _jpeg(_segment(0xE1, _exif(6)[:20])),
    _jpeg(_segment(0xE1, b'Exif\0\0')),
    _jpeg(_segment(0xE1, b'Exif\0\0MM\0*\xff\xff\xff\xff')),
    _jpeg(_segment(0xE1, b'Exif\0\0MM\0*\0\0\0\x08\xff\xff')),
    _jpeg(_segment(0xE1, b'Exi')),
    _jpeg()[:20] + b'\xff\xe1',
    _jpeg()[:20] + b'\xff\xe1\0\0Exif\0\0',
    _jpeg()[:20] + b'\xff\xe1\xff\xff' + _exif(6)[:-24],
    b'',
    b'\xff\xd8',
    b'\xff\xd8\xff\xe1',
  ]
  assert _found(files) == [1] * len(files)


def test_pictures_are_turned_as_pillow_turns_them():
  files = [_jpeg(_segment(0xE1, _exif(value))) for value in range(1, 9)]
  box = tf.constant([3, 5, 16, 24])

  def crops(encoded):
    shape = preprocessing.image_shape(encoded)
    whole_box = tf.concat([[0, 0], shape[:2]], 0)
    return (
      shape,
      preprocessing.decode_and_crop(encoded, whole_box),
      preprocessing.decode_and_crop(encoded, box),
    )

  dataset = tf.data.Dataset.from_tensor_slices(files).map(crops)
  found = list(dataset.as_numpy_iterator())
  assert len(found) == 8
  for value, (shape, whole, part) in enumerate(found, 1):
    image = Image.fromarray(tf.io.decode_jpeg(files[0], channels=3).numpy())
    image.getexif()[_TAG] = value
    expected = np.asarray(ImageOps.exif_transpose(image))
    assert tuple(shape) == expected.shape
    np.testing.assert_array_equal(whole, expected)
    # A part of a JPEG is decoded from whole blocks: its edges may differ.
    difference = expected[3:19, 5:29].astype(int) - part
    assert np.abs(difference).mean() < 1
  for result, eager in zip(found[5], crops(tf.constant(files[5]))):
    np.testing.assert_array_equal(result, eager)


def test_plain_files_are_recognized_by_their_head():
  tag = _segment(0xE1, _exif(6))
  files = [_jpeg(), _jpeg(tag), _jpeg(tag, jfif=False), _jpeg()[:23], b'']
  dataset = tf.data.Dataset.from_tensor_slices(files)
  found = list(dataset.map(orientation.is_plain_jpeg).as_numpy_iterator())
  assert found == [True, False, False, True, False]
