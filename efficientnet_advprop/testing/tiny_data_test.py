import os

import pytest
import tensorflow as tf

from efficientnet_advprop.testing import tiny_data


@pytest.mark.parametrize('index', [0, 7, 255, 256, 256 * 256 - 1])
def test_an_image_tells_its_number_through_crop_flip_and_resize(index):
  image = tf.io.decode_png(tiny_data.encoded_image(index, 20, 10))
  assert image.shape == [20, 10, 3]
  pixels = tf.cast(image, tf.float32) / 127.5 - 1
  changed = tf.image.resize(pixels[3:, 2:, :][:, ::-1], [6, 7])
  assert tiny_data.indices(tf.stack([changed, changed])) == [index, index]


def test_two_images_in_one_are_refused():
  first, second = (
    tf.cast(tf.io.decode_png(tiny_data.encoded_image(i)), tf.float32)
    for i in (1, 2)
  )
  mixed = tf.concat([first[:6], second[6:]], 0) / 127.5 - 1
  with pytest.raises(AssertionError):
    tiny_data.indices(mixed[tf.newaxis])


def test_shards_hold_numbered_images_and_their_labels(tmp_path):
  paths = tiny_data.write_split(str(tmp_path), 'train', [2, 0, 3])
  assert [os.path.basename(path) for path in paths] == [
    f'train-0000{shard}-of-00003' for shard in range(3)
  ]
  records = [
    tf.train.Example.FromString(record).features.feature
    for record in tf.data.TFRecordDataset(paths).as_numpy_iterator()
  ]
  for index, record in enumerate(records):
    (encoded,) = record['image/encoded'].bytes_list.value
    assert encoded == tiny_data.encoded_image(index)
    assert record['image/class/label'].int64_list.value == [index % 3 + 1]
  assert len(records) == 5


def test_listings_are_counted_within_the_context_alone(tmp_path):
  before = tf.io.gfile.listdir
  with tiny_data.counting_listings() as counts:
    tf.io.gfile.listdir(str(tmp_path))
    tf.io.gfile.listdir(tmp_path)
  assert counts == {str(tmp_path): 2}
  assert tf.io.gfile.listdir is before
