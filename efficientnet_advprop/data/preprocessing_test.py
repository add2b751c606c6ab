import io

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import randomness
from efficientnet_advprop.data import preprocessing

_CONFIG = config_lib.DataConfig()


def _scene(height, width):
  """A smooth image with edges, uint8 [height, width, 3]."""
  rows, columns = np.mgrid[:height, :width]
  red = 127 + 120 * np.sin(rows / 7)
  green = 255 * ((rows // 9 + columns // 13) % 2)
  blue = 255 * columns / width
  return np.stack([red, green, blue], -1).astype(np.uint8)


def _encode(image, kind='PNG', mode='RGB', **options):
  data = io.BytesIO()
  Image.fromarray(image).convert(mode).save(data, kind, **options)
  return data.getvalue()


# --- Decoding ---------------------------------------------------------------

ENCODINGS = [
  ('JPEG', 'RGB'), ('JPEG', 'L'), ('JPEG', 'CMYK'), ('PNG', 'RGB'),
  ('PNG', 'L'), ('PNG', 'RGBA'), ('PNG', 'P'), ('GIF', 'P'), ('BMP', 'RGB'),
]  # fmt: skip


@pytest.mark.parametrize('kind, mode', ENCODINGS)
def test_decoded_part_is_that_of_pil(kind, mode):
  # Away from black and white, where TensorFlow's faster inverse DCT can wrap.
  encoded = _encode(_scene(60, 80) // 2 + 64, kind, mode)
  image = np.asarray(Image.open(io.BytesIO(encoded)).convert('RGB'))
  box = tf.constant([16, 8, 30, 50])
  part = preprocessing.decode_and_crop(encoded, box).numpy()
  assert part.shape == (30, 50, 3)
  # Chroma is upsampled differently at a JPEG crop's edges.
  difference = np.abs(part.astype(int) - image[16:46, 8:58])[2:-2, 2:-2]
  assert difference.max() <= (4 if kind == 'JPEG' else 0)
  whole = tf.io.decode_image(encoded, 3, expand_animations=False)
  np.testing.assert_array_equal(part[2:-2, 2:-2], whole[18:44, 10:56])


@pytest.mark.parametrize('kind, mode', ENCODINGS)
def test_shape_of_an_encoded_image(kind, mode):
  encoded = _encode(_scene(60, 80), kind, mode)
  assert preprocessing.image_shape(encoded)[:2].numpy().tolist() == [60, 80]


def test_shape_of_nothing_is_an_error():
  for encoded in b'', b'text', b'\xff\xd8\xff', b'\x89PNG\r\n':
    with pytest.raises(tf.errors.InvalidArgumentError):
      preprocessing.image_shape(encoded)


def test_a_cut_image_is_an_error():
  for kind in 'JPEG', 'PNG':
    encoded = _encode(_scene(60, 80), kind)
    half = encoded[: len(encoded) // 2]
    with pytest.raises(tf.errors.InvalidArgumentError):
      preprocessing.decode_and_crop(half, tf.constant([0, 0, 60, 80]))


# --- Resizing ---------------------------------------------------------------


def _keys_kernel(distance, a):
  """Keys' cubic convolution kernel."""
  x = np.abs(distance)
  near = (a + 2) * x**3 - (a + 3) * x**2 + 1
  far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
  return np.where(x <= 1, near, np.where(x < 2, far, 0))


def _legacy_weights(old, new):
  """The matrix that resizes one axis; edge pixels repeat beyond the edge."""
  weights = np.zeros([new, old])
  for row in range(new):
    center = row * old / new
    for tap in range(int(np.floor(center)) - 1, int(np.floor(center)) + 3):
      column = min(max(tap, 0), old - 1)
      weights[row, column] += _keys_kernel(center - tap, -0.75)
  return weights


@pytest.mark.parametrize('height, width, size', [
  (48, 64, 32), (40, 40, 96), (32, 32, 32), (301, 77, 50),
])  # fmt: skip
def test_resize_is_the_closed_form(height, width, size):
  image = _scene(height, width)
  rows, columns = (_legacy_weights(n, size) for n in (height, width))
  expected = np.einsum(
    'ih,jw,hwc->ijc', rows, columns, image.astype(float), optimize=True
  )
  result = preprocessing.resize(tf.constant(image), size)
  assert result.dtype == tf.float32
  # TensorFlow reads the kernel from a table of 1024 entries.
  np.testing.assert_allclose(result, np.clip(expected, 0, 255), atol=0.3)


def test_resize_clips_the_overshoot():
  image = np.zeros([16, 16, 3], np.uint8)
  image[:, 8:] = 255
  raw = tf.raw_ops.ResizeBicubic(images=image[None], size=[64, 64])
  assert tf.reduce_min(raw) < -5
  result = preprocessing.resize(tf.constant(image), 64)
  assert (float(tf.reduce_min(result)), float(tf.reduce_max(result))) == (
    0,
    255,
  )


def test_normalize_is_linear_onto_minus_one_to_one():
  values = tf.range(256, dtype=tf.int32)
  expected = np.linspace(-1, 1, 256)
  for dtype in tf.uint8, tf.float32:
    result = preprocessing.normalize(tf.cast(values, dtype))
    assert result.dtype == tf.float32
    np.testing.assert_allclose(result, expected, atol=1e-7)
    assert (result[0], result[255]) == (-1, 1)


# --- Crops ------------------------------------------------------------------


@pytest.mark.parametrize('shape, size, padding, box', [
  ((500, 400), 224, 32, (75, 25, 350, 350)),
  ((400, 500), 224, 32, (25, 75, 350, 350)),
  ((375, 500), 600, 32, (10, 72, 356, 356)),
  ((32, 32), 32, 0, (0, 0, 32, 32)),
  ((33, 40), 32, 4, (2, 6, 29, 29)),
  ((9, 8), 224, 32, (1, 1, 7, 7)),
])  # fmt: skip
def test_center_box(shape, size, padding, box):
  # int(224 / 256 * 400) = 350, (500 - 350 + 1) // 2 = 75, and so on.
  result = preprocessing.center_box(tf.constant(shape), size, padding)
  assert tuple(result.numpy()) == box


def _official_boxes(height, width, min_area, count, rng):
  """Heights and widths that the rule of Inception's crop draws.

  Written from the kernel's rule: the aspect ratio is uniform, the height is
  uniform between those that give the smallest and largest area, a crop that
  covers less than a tenth is refused, and so is one beyond the image.
  """
  boxes: list[tuple[int, int]] = []
  while len(boxes) < count:
    for _ in range(10):
      aspect = rng.uniform(3 / 4, 4 / 3)
      low = round(np.sqrt(min_area * height * width / aspect))
      high = round(np.sqrt(height * width / aspect))
      if round(high * aspect) > width:
        high = int((width + 0.5 - 1e-7) / aspect)
      high = min(high, height)
      crop = rng.integers(min(low, high), high + 1)
      crop_width = round(crop * aspect)
      if crop * crop_width < min_area * height * width:  # By rounding, maybe.
        crop += 1
        crop_width = round(crop * aspect)
      area = crop * crop_width / (height * width)
      if max(0.1, min_area) <= area and crop_width <= width:
        boxes.append((crop, crop_width))
        break
    else:
      boxes.append((height, width))
  return np.array(boxes)


@pytest.mark.parametrize('height, width, min_area', [
  (375, 500, 0.08), (500, 300, 0.5),
])  # fmt: skip
def test_random_boxes_follow_the_official_rule(height, width, min_area):
  count = 4000
  config = config_lib.DataConfig(min_crop_area=min_area)

  def draw(index):
    shape = tf.constant([height, width, 3])
    return preprocessing.random_box(shape, tf.stack([3, index]), 224, config)

  boxes = tf.data.Dataset.range(count).map(lambda i: draw(tf.cast(i, tf.int32)))
  boxes = np.stack(list(boxes.as_numpy_iterator()))
  assert (boxes >= 0).all()
  assert (boxes[:, 0] + boxes[:, 2] <= height).all()
  assert (boxes[:, 1] + boxes[:, 3] <= width).all()
  rng = np.random.default_rng(0)
  expected = _official_boxes(height, width, min_area, count, rng)
  # Kolmogorov and Smirnov: 1.95 sqrt(2 / n) is exceeded once in a thousand.
  limit = 1.95 * np.sqrt(2 / count)
  for result, reference in (
    (boxes[:, 2], expected[:, 0]),
    (boxes[:, 3], expected[:, 1]),
    (boxes[:, 2] * boxes[:, 3], expected.prod(1)),
    (boxes[:, 2] / boxes[:, 3], expected[:, 0] / expected[:, 1]),
  ):
    points = np.union1d(result, reference)
    cumulative = [
      np.searchsorted(np.sort(values), points, 'right') / count
      for values in (result, reference)
    ]
    assert np.abs(cumulative[0] - cumulative[1]).max() < limit
  # Wherever there is room, the place is uniform.
  room = height - boxes[:, 2]
  places = (boxes[:, 0] + 0.5) / (room + 1)
  assert abs(places[room > 0].mean() - 0.5) < 0.03


def test_an_impossible_crop_is_the_center():
  # No box of an aspect ratio from 3/4 covers a tenth of so long an image.
  shape, seed = tf.constant([1000, 60, 3]), tf.constant([0, 0])
  box = preprocessing.random_box(shape, seed, 224, _CONFIG)
  center = preprocessing.center_box(shape, 224, _CONFIG.eval_crop_padding)
  np.testing.assert_array_equal(box, center)


# --- Images -----------------------------------------------------------------


def _training_image(encoded, seed, config=_CONFIG):
  shape = preprocessing.image_shape(encoded)
  return preprocessing.training_image(encoded, shape, seed, 24, config)


def test_training_image_is_crop_resize_and_flip():
  image = _scene(60, 80)
  encoded = _encode(image)
  flips = 0
  shape = preprocessing.image_shape(encoded)
  for index in range(20):
    seed = tf.constant([7, index])
    result = _training_image(encoded, seed).numpy()
    crop_seed = randomness.fold(seed, randomness.CROP)
    box = preprocessing.random_box(shape, crop_seed, 24, _CONFIG)
    crop = preprocessing.decode_and_crop(encoded, box)
    straight = np.rint(preprocessing.resize(crop, 24)).astype(np.uint8)
    flipped = (result != straight).any()
    flips += flipped
    np.testing.assert_array_equal(
      result, straight[:, ::-1] if flipped else straight
    )
  assert 4 < flips < 16


def test_training_image_is_the_same_inside_tf_data():
  encoded = _encode(_scene(60, 80), 'JPEG')
  seeds = tf.constant([[1, 2], [3, 4]])
  dataset = tf.data.Dataset.from_tensor_slices(seeds)
  dataset = dataset.map(lambda seed: _training_image(encoded, seed))
  assert dataset.element_spec == tf.TensorSpec([24, 24, 3], tf.uint8)
  for seed, image in zip(seeds, dataset):
    np.testing.assert_array_equal(_training_image(encoded, seed), image)


def test_evaluation_image_is_center_crop_and_resize():
  image = _scene(90, 70)
  encoded = _encode(image)
  # int(28 / 32 * 70) = 61, from (90 - 61 + 1) // 2 = 15 and 5.
  expected = preprocessing.resize(tf.constant(image[15:76, 5:66]), 28)
  result = preprocessing.evaluation_image(tf.constant(encoded), 28, 4)
  np.testing.assert_array_equal(result, expected)
  traced = tf.function(
    lambda data: preprocessing.evaluation_image(data, 28, 4),
    input_signature=[tf.TensorSpec([], tf.string)],
  )
  assert traced(encoded).shape == [28, 28, 3]
  np.testing.assert_array_equal(traced(encoded), expected)


def test_an_image_of_the_right_size_is_left_alone():
  image = _scene(32, 32)
  result = preprocessing.evaluation_image(_encode(image), 32, 0)
  np.testing.assert_array_equal(result, image.astype(np.float32))


def test_levels_are_clipped_and_rounded_half_to_even():
  """For every half and its neighbours, eagerly and inside tf.data."""
  halves = np.arange(-3, 259, 0.5, np.float32)
  neighbours = [np.nextafter(halves, np.float32(s)) for s in (-1e3, 1e3)]
  drawn = np.random.default_rng(0).uniform(-90, 350, 20_000)
  values = np.concatenate([halves, *neighbours, drawn]).astype(np.float32)
  expected = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
  eager = preprocessing.to_levels(tf.constant(values))
  np.testing.assert_array_equal(eager, expected)
  dataset = tf.data.Dataset.from_tensors(values).map(preprocessing.to_levels)
  (mapped,) = dataset.as_numpy_iterator()
  np.testing.assert_array_equal(mapped, expected)
  assert mapped.dtype == np.uint8
