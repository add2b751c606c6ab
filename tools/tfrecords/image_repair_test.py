"""Repairs against what their formulas say, and files that hold no image."""

import io

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from tools.tfrecords import image_repair


def _picture(height=24, width=40):
  """A smooth picture, so that JPEG keeps it within a few levels."""
  y, x = np.mgrid[:height, :width]
  planes = [x * 6, y * 9, 240 - x * 3 - y * 2]
  return Image.fromarray(np.stack(planes, -1).astype(np.uint8))


def _file(image, file_format, **options):
  buffer = io.BytesIO()
  image.save(buffer, file_format, **options)
  return buffer.getvalue()


def _decoded(jpeg):
  return tf.io.decode_jpeg(jpeg, dct_method='INTEGER_ACCURATE').numpy()


def _assert_near(prepared, expected, levels=6):
  found = _decoded(prepared.jpeg)
  assert (prepared.height, prepared.width, 3) == found.shape == expected.shape
  difference = np.abs(found.astype(int) - expected)
  assert difference.mean() < 1.5 and difference.max() <= levels


def test_an_rgb_jpeg_stays_byte_for_byte():
  data = _file(_picture(), 'JPEG', quality=70, progressive=True)
  assert image_repair.prepare(data) == (data, 24, 40, ())


@pytest.mark.parametrize('name', ['png', 'bmp', 'webp', 'gif'])
def test_other_formats_become_jpegs(name):
  options = {'lossless': True} if name == 'webp' else {}
  image = _picture().resize((40, 24), box=(0, 8, 40, 9))  # 40 colors: for GIF.
  prepared = image_repair.prepare(_file(image, name, **options))
  assert prepared.repairs == (name,)
  _assert_near(prepared, np.array(image))


def test_cmyk_becomes_rgb():
  ink = np.zeros([16, 24, 4], np.uint8)
  ink[..., 0], ink[..., 1], ink[..., 3] = 200, 40, 100
  bands = [Image.fromarray(band) for band in np.moveaxis(ink, -1, 0).copy()]
  image = Image.merge('CMYK', bands)
  data = _file(image, 'JPEG', quality=100)
  prepared = image_repair.prepare(data)
  assert prepared.repairs == ('cmyk',)
  light = 255.0 - ink.astype(float)
  expected = light[..., :3] * light[..., 3:] / 255
  _assert_near(prepared, expected.round())


def test_grey_becomes_three_equal_channels():
  grey = np.array(_picture())[..., 0]
  prepared = image_repair.prepare(_file(Image.fromarray(grey), 'JPEG'))
  assert prepared.repairs == ('grey',)
  _assert_near(prepared, np.repeat(grey[..., None], 3, -1))


def test_16_bits_of_grey_keep_their_upper_half():
  deep = np.array(_picture())[..., 0].astype(np.uint16) * 256 + 255
  prepared = image_repair.prepare(_file(Image.fromarray(deep), 'PNG'))
  assert prepared.repairs == ('png', 'grey')
  _assert_near(prepared, np.repeat((deep >> 8)[..., None], 3, -1))


@pytest.mark.parametrize(
  'orientation, upright',
  [
    (3, lambda a: a[::-1, ::-1]),
    (5, lambda a: a.swapaxes(0, 1)),
    (6, lambda a: np.rot90(a, -1)),
    (8, lambda a: np.rot90(a, 1)),
  ],
)
def test_rotated_pictures_are_stored_upright(orientation, upright):
  exif = Image.Exif()
  exif[0x0112] = orientation
  data = _file(_picture(), 'JPEG', quality=100, subsampling=0, exif=exif)
  prepared = image_repair.prepare(data)
  assert prepared.repairs == ('rotated',)
  _assert_near(prepared, upright(np.array(_picture())))
  assert Image.open(io.BytesIO(prepared.jpeg)).getexif().get(0x0112, 1) == 1


def test_what_is_transparent_becomes_white():
  layers = np.zeros([16, 16, 4], np.uint8)
  layers[:8, :, 1:] = 255
  prepared = image_repair.prepare(_file(Image.fromarray(layers), 'PNG'))
  expected = np.full([16, 16, 3], 255, np.uint8)
  expected[:8, :, 0] = 0
  _assert_near(prepared, expected)


@pytest.mark.parametrize(
  'data, reason',
  [
    (b'', 'empty'),
    (b'hello, world\n', 'not an image'),
    (_file(_picture(), 'JPEG')[:100], 'header'),
    (_file(_picture(), 'JPEG')[:-40], 'cut short'),
    (_file(_picture(), 'PNG')[:-40], 'cannot be decoded'),
    (_file(_picture(24, 7), 'PNG'), '7 x 24 pixels; 8 to 16384'),
    (_file(Image.new('1', (16385, 8)), 'PNG'), '16385 x 8 pixels'),
  ],
)
def test_unreadable_files_tell_why(data, reason):
  with pytest.raises(image_repair.UnreadableError, match=reason) as caught:
    image_repair.prepare(data)
  assert '\n' not in str(caught.value)
