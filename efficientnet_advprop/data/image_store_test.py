import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.data import image_store


def _index(starts, sides, bad, size):
  labels = np.arange(len(starts), dtype=np.int32)
  problems = np.array([b'image %d: no JPEG' % number for number in bad])
  return image_store.Index(
    np.array(starts, np.int64),
    np.array(sides, np.int32),
    labels,
    np.array(bad, np.int64),
    problems,
    size,
  )


def _store(place, images, bad):
  """A file of images, each behind the other, on a disk or in memory."""
  starts, sides, parts, size = [], [], [image_store.HEADER], 64
  for image in images:
    starts.append(size)
    sides.append(image.shape[:2])
    parts.append(image.tobytes())
    size += len(parts[-1])
  with place.open('w+b') if place else image_store.file_in_memory() as file:
    file.write(b''.join(parts))
    file.flush()
    return image_store.Store(file, _index(starts, sides, bad, size))


@pytest.mark.parametrize('on_disk', [True, False])
def test_images_are_found_by_their_numbers(tmp_path, on_disk):
  """Inside of tf.data, where the file itself is closed already."""
  rng = np.random.default_rng(0)
  images = [
    rng.integers(0, 256, [height, width, 3], np.uint8)
    for height, width in [(7, 5), (0, 0), (4, 9)]
  ]
  store = _store(tmp_path / 'images' if on_disk else None, images, [1])
  assert store.shape(0).numpy().tolist() == [7, 5, 3]
  assert store.shape(1).numpy().tolist() == [0, 0, 3]
  assert store.problem(tf.constant(1, tf.int64)) == b'image 1: no JPEG'
  with pytest.raises(tf.errors.InvalidArgumentError):
    store.problem(tf.constant(2, tf.int64))
  boxes = [(0, 0, 7, 5), (2, 1, 3, 4)], [(1, 3, 2, 6), (3, 8, 1, 1)]
  for number, found in zip((0, 2), boxes):
    dataset = tf.data.Dataset.from_tensor_slices(tf.constant(found, tf.int32))
    crops = dataset.map(
      lambda box, n=number: store.crop(tf.constant(n, tf.int64), box)
    )
    for (top, left, height, width), crop in zip(found, crops):
      expected = images[number][top : top + height, left : left + width]
      np.testing.assert_array_equal(crop, expected)
    assert store.label(tf.constant(number)) == number


def test_images_of_numbers_are_floats(tmp_path):
  images = np.random.default_rng(0).normal(size=[2, 3, 3, 3]).astype(np.float32)
  store = _store(tmp_path / 'images', list(images), [])
  for number, image in enumerate(images):
    found = store.floats(tf.constant(number, tf.int64), 3)
    np.testing.assert_array_equal(found, image)
  with pytest.raises(tf.errors.InvalidArgumentError):
    store.floats(tf.constant(0, tf.int64), 4)


def test_an_index_is_read_as_it_was_written(tmp_path):
  path = str(tmp_path / 'index')
  index = _index([64, 169], [(7, 5), (0, 0)], [1], 169)
  image_store.write_index(path, index)
  read = image_store.read_index(path)
  for name, value in vars(index).items():
    np.testing.assert_array_equal(getattr(read, name), value)
  whole = (tmp_path / 'index').read_bytes()
  for size in (0, 100, len(whole) // 2, len(whole) - 30):
    (tmp_path / 'index').write_bytes(whole[:size])
    with pytest.raises(ValueError):
      image_store.read_index(path)
