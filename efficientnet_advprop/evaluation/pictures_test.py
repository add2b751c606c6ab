import os

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.data import tfrecords
from efficientnet_advprop.evaluation import pictures
from efficientnet_advprop.testing import tiny_data

_WHOLE = config_lib.DataConfig(eval_crop_padding=0)


def _write(folder, names):
  """Writes image i under the name with this number."""
  for index, name in enumerate(names):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tiny_data.encoded_image(index))


def _read(*paths):
  return list(pictures.read([os.fspath(p) for p in paths], _WHOLE, 12))


def test_inputs_become_files(tmp_path):
  _write(tmp_path, ['b.png', 'deep/er/a.JPG', 'c.bmp'])
  for name in ('notes.txt', '.hidden', 'old.tiff'):
    (tmp_path / name).write_text('no picture')
  folder = os.fspath(tmp_path)
  found = pictures.find([folder])
  # Those of a kind that is not decoded get their line later.
  names = ['b.png', 'c.bmp', 'deep/er/a.JPG', 'old.tiff']
  assert found == [os.path.join(folder, name) for name in names]
  # In the order of the inputs; a pattern does not reach into folders.
  inputs = [f'{folder}/c.bmp', f'{folder}/[bd]*']
  assert pictures.find(inputs) == [f'{folder}/c.bmp', f'{folder}/b.png']


def test_a_folder_without_pictures_is_one_of_records(tmp_path):
  paths = tiny_data.write_split(tmp_path, 'train', [2, 1])
  (tmp_path / 'labels.txt').write_text('red\nblue\n')
  (tmp_path / 'empty').touch()
  assert pictures.find([os.fspath(tmp_path)]) == paths
  assert pictures.is_records(paths[0])
  _write(tmp_path, ['a.png'])
  for name in ('a.png', 'labels.txt', 'empty'):
    assert not pictures.is_records(os.fspath(tmp_path / name))


@pytest.mark.parametrize('name', ['notes', 'none.jpg', 'none*.jpg', '['])
def test_an_input_that_names_nothing_is_one_line(tmp_path, name):
  (tmp_path / 'notes').mkdir()
  (tmp_path / 'notes' / 'notes.txt').write_text('no picture')
  with pytest.raises(errors.DataError, match='no pictures; allowed') as caught:
    pictures.find([os.fspath(tmp_path / name)])
  assert '\n' not in str(caught.value)


def test_pictures_come_in_their_order_whatever_cannot_be_read(tmp_path):
  """There are more of them than are read ahead."""
  names = [f'{index:03d}.png' for index in range(150)]
  _write(tmp_path, names)
  (tmp_path / names[70]).write_bytes(b'')
  (tmp_path / names[99]).unlink()
  found = _read(*(tmp_path / name for name in names))
  assert [os.path.basename(picture.name) for picture in found] == names
  unread = {70: 'not a JPEG', 99: 'No such file'}
  for index, picture in enumerate(found):
    if index in unread:
      assert picture.pixels is None and unread[index] in picture.problem
    else:
      assert not picture.problem and picture.pixels.dtype == np.float32
      assert tiny_data.indices(picture.pixels[None]) == [index]


def test_records_are_read_up_to_the_damage(tmp_path):
  path = tmp_path / 'unlabelled-00000-of-00001'
  encoded = [tiny_data.encoded_image(index) for index in range(3)]
  records = [
    tfrecords.encode_example({'image/encoded': encoded[0]}),
    tfrecords.encode_example({'image/other': b''}),
    b'no message',
    tfrecords.encode_example({'image/encoded': b''}),
    tfrecords.encode_example({'image/encoded': encoded[1]}),
    tfrecords.encode_example({'image/encoded': encoded[2]}),
  ]
  tiny_data.write_shard(path, records)
  path.write_bytes(path.read_bytes()[:-3])
  (tmp_path / 'short').write_text('eight...')
  (tmp_path / 'last').write_bytes(encoded[2])
  found = _read(path, tmp_path / 'last', tmp_path / 'short')
  assert [p.name for p in found[:-2]] == [f'{path}:{n}' for n in range(6)]
  problems = [picture.problem for picture in found]
  assert [bool(problem) for problem in problems] == [0, 1, 1, 1, 0, 1, 0, 1]
  assert problems[1] == problems[2] == 'a record without image/encoded'
  assert problems[3] == problems[7] == 'not a JPEG, PNG, GIF or BMP picture'
  assert problems[5] == 'damaged; the rest of the file is not read'
  read = [picture.pixels for picture in found if not picture.problem]
  assert tiny_data.indices(np.stack(read)) == [0, 1, 2]


def test_a_cut_inside_a_header_is_damage_too(tmp_path):
  """TensorFlow takes it for the end of the file."""
  path = tmp_path / 'train-00000-of-00001'
  encoded = tiny_data.encoded_image(0)
  tiny_data.write_shard(path, [tiny_data.example(encoded, 1)])
  whole = path.read_bytes()
  path.write_bytes(whole + whole[: tfrecords.HEADER_BYTES - 1])
  first, cut = _read(path)
  assert tiny_data.indices(first.pixels[None]) == [0]
  assert (cut.name, cut.pixels) == (f'{path}:1', None)
  assert cut.problem == 'damaged; the rest of the file is not read'


def test_a_picture_is_cropped_as_for_evaluation(tmp_path):
  pixels = np.zeros([64, 64, 3], np.uint8)
  pixels[16:48, 16:48] = 255
  path = tmp_path / 'framed.png'
  path.write_bytes(tf.io.encode_png(pixels).numpy())
  config = config_lib.DataConfig(eval_crop_padding=32)
  (found,) = pictures.read([os.fspath(path)], config, 32)
  np.testing.assert_array_equal(found.pixels, np.ones([32, 32, 3]))
  (whole,) = pictures.read([os.fspath(path)], _WHOLE, 32)
  assert whole.pixels.shape == (32, 32, 3) and whole.pixels[0, 0, 0] == -1
