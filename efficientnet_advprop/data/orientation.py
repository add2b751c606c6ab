"""Upright pictures: how a JPEG's Exif data says that it is to be turned.

Phones store a picture as the sensor lay and state the turn in a tag; TensorFlow
does not read it. Everything here is TensorFlow without Python state, so that
tf.data runs it in parallel and an exported network carries it. `is_plain_jpeg`
recognizes most files that need no search for the tag by their first 24 bytes.

The tag is looked for where the Exif standard has it: in front of the first
segment that is not an application's or a comment. Orientations 1 to 8 are those
of the standard; 1 is upright.
"""

import tensorflow as tf

UPRIGHT = 1

# FF D8 FF E0 00 10 'JF' ... and at byte 20 the mark FF DB of a table, as
# little-endian numbers of 8 bytes: no room for a tag in between.
_PLAIN_HEAD = (0x464A1000E0FFD8FF, 0, 0xDBFF << 32)
_PLAIN_MASK = (0x7FFFFFFFFFFFFFFF, 0, 0xFFFF << 32)
# A segment holds at most 64 KiB; a JFIF header, a comment or a profile may come
# before.
_SEARCHED_BYTES = 1 << 18
_TAG, _SHORT = 0x0112, 3  # Of the orientation; its type.
_ENTRY_BYTES = 12


def is_plain_jpeg(encoded: tf.Tensor) -> tf.Tensor:
  """Returns whether a file is a JPEG of the most common kind, bool [].

  Such a file begins with a JFIF header and a table, so that nothing in it says
  how to turn it.

  Args:
    encoded: a scalar string.
  """
  head = tf.io.decode_raw(encoded, tf.int64, fixed_length=24)
  plain = tf.bitwise.bitwise_and(head, tf.constant(_PLAIN_MASK, tf.int64))
  return tf.reduce_all(plain == tf.constant(_PLAIN_HEAD, tf.int64))


def of_jpeg(encoded: tf.Tensor) -> tf.Tensor:
  """Returns the orientation of a JPEG, int32 [], from 1 to 8.

  A damaged or missing tag means 1.

  Args:
    encoded: a scalar string.
  """
  searched = tf.strings.substr(encoded, 0, _SEARCHED_BYTES)
  # Much faster than going from segment to segment; \C is any byte.
  has_name = tf.strings.regex_full_match(searched, r'\C*Exif\C*')
  return tf.cond(
    has_name, lambda: _search(encoded), lambda: tf.constant(UPRIGHT)
  )


@tf.function(autograph=False, experimental_attributes={'_noinline': True})
def _search(encoded: tf.Tensor) -> tf.Tensor:
  data = tf.io.decode_raw(encoded, tf.uint8, fixed_length=_SEARCHED_BYTES)

  def byte(place: tf.Tensor) -> tf.Tensor:
    place = tf.clip_by_value(place, 0, _SEARCHED_BYTES - 1)
    return tf.cast(data[place], tf.int32)

  def is_skipped(place: tf.Tensor, exif: tf.Tensor) -> tf.Tensor:
    """Whether an application's segment or a comment begins at `place`."""
    mark = byte(place + 1)
    is_other = (mark >= 0xE0) & (mark <= 0xEF) | (mark == 0xFE)
    return (exif < 0) & (byte(place) == 0xFF) & is_other

  def skip(place: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    name = tf.constant(list(b'Exif\0\0'), tf.uint8)
    found = data[place + 4 : place + 10]
    is_exif = byte(place + 1) == 0xE1
    is_exif &= tf.size(found) == 6
    is_exif = tf.cond(
      is_exif, lambda: tf.reduce_all(found == name), lambda: False
    )
    length = byte(place + 2) * 256 + byte(place + 3)
    following = tf.minimum(place + 2 + length, _SEARCHED_BYTES)
    return following, tf.where(is_exif, place, -1)

  _, exif = tf.while_loop(
    is_skipped, skip, (tf.constant(2), tf.constant(-1)), parallel_iterations=1
  )
  return tf.cond(
    exif < 0, lambda: tf.constant(UPRIGHT), lambda: _read_tag(data, exif)
  )


def _read_tag(data: tf.Tensor, exif: tf.Tensor) -> tf.Tensor:
  """Returns the orientation in the Exif segment at `exif`, int32 []."""
  length = tf.cast(data[exif + 2], tf.int32) * 256
  length += tf.cast(data[exif + 3], tf.int32)
  # A TIFF file without an image; its numbers count from its first byte.
  tiff = tf.cast(data[exif + 10 : exif + 2 + length], tf.int64)
  tiff = tf.concat([tiff, tf.zeros([_ENTRY_BYTES], tf.int64)], 0)
  is_little = tiff[0] == ord('I')

  def number(data: tf.Tensor) -> tf.Tensor:
    """Numbers of the last axis' bytes."""
    size = data.shape[-1]
    powers = tf.constant([256**i for i in range(size)], tf.int64)
    powers = tf.where(is_little, powers, powers[::-1])
    return tf.reduce_sum(data * powers, -1)

  size = tf.size(tiff, tf.int64) - _ENTRY_BYTES
  directory = number(tf.ensure_shape(tiff[4:8], [4]))
  directory = tf.clip_by_value(directory, 0, tf.maximum(size, 0))
  count = number(tf.ensure_shape(tiff[directory : directory + 2], [2]))
  room = tf.maximum(size - directory - 2, 0) // _ENTRY_BYTES
  count = tf.minimum(count, room)
  start = directory + 2
  entries = tiff[start : start + count * _ENTRY_BYTES]
  entries = tf.reshape(entries, [-1, _ENTRY_BYTES])
  is_tag = number(entries[:, 0:2]) == _TAG
  is_tag &= number(entries[:, 2:4]) == _SHORT
  values = tf.where(is_tag, number(entries[:, 8:10]), 0)
  value = tf.reduce_max(tf.concat([values, [0]], 0))
  is_known = (value >= 1) & (value <= 8)
  return tf.where(is_known, tf.cast(value, tf.int32), UPRIGHT)


def upright_shape(shape: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
  """Returns the shape of the upright picture, from that of the stored one.

  Args:
    shape: int32 [3]: height, width, channels.
    orientation: int32 [].
  """
  return tf.where(orientation >= 5, tf.gather(shape, [1, 0, 2]), shape)


def _flips(orientation: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """Whether rows and columns are reversed, after a transposition from 5 on."""
  rows = tf.constant([o in (3, 4, 7, 8) for o in range(9)])
  columns = tf.constant([o in (2, 3, 6, 7) for o in range(9)])
  return rows[orientation], columns[orientation]


def stored_box(
  box: tf.Tensor, shape: tf.Tensor, orientation: tf.Tensor
) -> tf.Tensor:
  """Returns where a box of the upright picture is in the stored one.

  Args:
    box: int32 [4]: top, left, height, width in pixels.
    shape: int32 [2 or 3]: height and width of the upright picture.
    orientation: int32 [].
  """
  top, left, height, width = tf.unstack(box)
  rows, columns = _flips(orientation)
  top = tf.where(rows, shape[0] - top - height, top)
  left = tf.where(columns, shape[1] - left - width, left)
  return tf.where(
    orientation >= 5,
    tf.stack([left, top, width, height]),
    tf.stack([top, left, height, width]),
  )


def turn(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
  """Turns a stored picture upright.

  Args:
    image: [height, width, channels].
    orientation: int32 [].

  Returns:
    The picture; from orientation 5 on its sides are exchanged.
  """
  image = tf.cond(
    orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image
  )
  rows, columns = _flips(orientation)
  image = tf.cond(rows, lambda: image[::-1], lambda: image)
  return tf.cond(columns, lambda: image[:, ::-1], lambda: image)
