"""Against the published algorithms, written a second time on other libraries.

The generators use OpenCV and scikit-image; the references here are loops over
pixels, closed forms, and SciPy.
"""

import importlib.resources

import numpy as np
from PIL import Image
import pytest

from efficientnet_advprop.evaluation import corruptions
from efficientnet_advprop.evaluation import drawn_corruptions

cv2 = pytest.importorskip('cv2', exc_type=ImportError)
pytest.importorskip('imagecorruptions', exc_type=ImportError)


def _image(side):
  """Smooth waves with a sharp square, uint8."""
  row, column = np.mgrid[:side, :side] / side
  waves = [np.sin(7 * row), np.cos(5 * column), np.sin(4 * (row + column))]
  image = np.uint8(127 + 100 * np.stack(waves, -1))
  image[side // 4 : side // 2, side // 4 : side // 2] = [230, 40, 90]
  return image


def _reflected(index, size):
  """Positions mirrored at the middle of the border pixels (reflect 101)."""
  period = 2 * (size - 1)
  index = np.abs(index) % period
  return np.minimum(index, period - index)


def _bilinear(image, rows, columns, mirror):
  """Samples by hand; rows and columns of any shape."""
  top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
  total = 0
  for dy in (0, 1):
    for dx in (0, 1):
      weight = (1 - np.abs(rows - top - dy)) * (1 - np.abs(columns - left - dx))
      y = mirror(top + dy, image.shape[0])
      x = mirror(left + dx, image.shape[1])
      total = total + weight[..., None] * image[y, x]
  return total


def _symmetric(index, size):
  """Positions mirrored at the border itself, as SciPy's mode reflect."""
  index = np.mod(index, 2 * size)
  return np.minimum(index, 2 * size - 1 - index)


def _smoothed(noise, sigma):
  """A separable Gaussian, cut off after 3 sigma."""
  radius = int(3 * sigma + 0.5)
  offsets = np.arange(-radius, radius + 1)
  taps = np.exp(-(offsets**2) / (2 * sigma**2 + 1e-300))
  taps /= taps.sum()
  for axis in (0, 1):
    size = noise.shape[axis]
    noise = sum(
      tap * np.take(noise, _symmetric(np.arange(size) + offset, size), axis)
      for tap, offset in zip(taps, offsets)
    )
  return noise


def _elastic(image, alpha, sigma, jitter):
  """Elastic transform as `make_imagenet_c.py` draws it; float in [0, 1]."""
  height, width = image.shape[:2]
  middle, arm = np.array([height, width]) // 2, min(height, width) // 3
  points = np.stack(
    [middle + arm, [middle[0] + arm, middle[1] - arm], middle - arm]
  )
  moved = points + np.random.uniform(-jitter, jitter, [3, 2])
  # The affine map from `points`, as (x, y), to `moved`, sampled backwards.
  ones = np.ones([3, 1])
  backwards = np.linalg.solve(np.hstack([moved, ones]), points)
  y, x = np.mgrid[:height, :width]
  back = np.stack([x, y, np.ones_like(x)], -1) @ backwards
  warped = _bilinear(image, back[..., 1], back[..., 0], _reflected)
  dx = alpha * _smoothed(np.random.uniform(-1, 1, [height, width]), sigma)
  dy = alpha * _smoothed(np.random.uniform(-1, 1, [height, width]), sigma)
  return _bilinear(warped, y + dy, x + dx, _symmetric)


_SCALES = {
  'imagenet_c': [
    *((488, 170.8, 24.4), (488, 19.52, 48.8), (12.2, 2.44, 4.88)),
    *((17.08, 2.44, 4.88), (29.28, 2.44, 4.88)),
  ],
  'cifar_c': [
    *((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92)),
    *((3.2, 1.28, 1.6), (3.2, 0.96, 0.96)),
  ],
}


@pytest.mark.parametrize('severity', [1, 3, 5])
@pytest.mark.parametrize(
  'strengths, side', [('imagenet_c', 96), ('cifar_c', 32)]
)
def test_elastic_transform(strengths, side, severity):
  image = _image(side)
  tables = {
    'imagenet_c': drawn_corruptions.IMAGENET_C,
    'cifar_c': drawn_corruptions.CIFAR_C,
  }
  np.random.seed(severity)
  found = drawn_corruptions.draw(
    tables[strengths], image, 'elastic_transform', severity
  )
  np.random.seed(severity)
  expected = 255 * _elastic(image / 255, *_SCALES[strengths][severity - 1])
  difference = np.abs(found - expected)
  # OpenCV places pixels in steps of 1/32, which the sharp square shows.
  assert np.median(difference) < 1.5
  assert np.mean(difference) < 2.5
  # It moves pixels by far more than that.
  assert np.mean(np.abs(found - image.astype(float))) > 4 * np.mean(difference)


def test_frost_is_a_part_of_one_of_five_textures():
  image = _image(64)
  folder = importlib.resources.files('imagecorruptions').joinpath('frost')
  textures = []
  for number in range(1, 6):
    kind = 'png' if number < 4 else 'jpg'
    with folder.joinpath(f'frost{number}.{kind}').open('rb') as file:
      textures.append(np.asarray(Image.open(file).convert('RGB'), float))
  table = drawn_corruptions.IMAGENET_C
  seen = set()
  for seed in range(12):
    np.random.seed(seed)
    found = drawn_corruptions.draw(table, image, 'frost', 3)
    np.random.seed(seed)
    number = np.random.randint(5)
    seen.add(number)
    texture = textures[number]
    top = np.random.randint(texture.shape[0] - 64)
    left = np.random.randint(texture.shape[1] - 64)
    ice = texture[top : top + 64, left : left + 64]
    expected = np.clip(0.7 * image + 0.7 * ice, 0, 255)
    # JPEG decoders differ by a few levels.
    assert np.max(np.abs(found - expected)) <= (1 if number < 3 else 6)
  assert len(seen) >= 4


def test_cifar_noises_have_the_published_strengths():
  grey = np.full([256, 256, 3], 128, np.uint8)
  table = drawn_corruptions.CIFAR_C
  np.random.seed(0)
  for severity, deviation in enumerate((0.04, 0.06, 0.08, 0.09, 0.10), 1):
    found = drawn_corruptions.draw(table, grey, 'gaussian_noise', severity)
    assert np.std(found / 255) == pytest.approx(deviation, rel=0.02)
  for severity, photons in enumerate((500, 250, 100, 75, 50), 1):
    found = drawn_corruptions.draw(table, grey, 'shot_noise', severity)
    expected = np.sqrt(128 / 255 / photons)  # Of a Poisson number.
    assert np.std(found / 255) == pytest.approx(expected, rel=0.02)
  for severity, share in enumerate((0.01, 0.02, 0.03, 0.05, 0.07), 1):
    found = drawn_corruptions.draw(table, grey, 'impulse_noise', severity)
    assert np.mean(found == 0) == pytest.approx(share / 2, rel=0.1)
    assert np.mean(found == 255) == pytest.approx(share / 2, rel=0.1)


def test_cifar_tones_follow_their_formulas():
  image, table = _image(32), drawn_corruptions.CIFAR_C
  for severity, factor in enumerate((0.75, 0.5, 0.4, 0.3, 0.15), 1):
    found = drawn_corruptions.draw(table, image, 'contrast', severity)
    means = image.reshape(-1, 3).mean(0)
    expected = np.clip((image - means) * factor + means, 0, 255)
    assert np.max(np.abs(found - np.floor(expected))) <= 1
  for severity, amount in enumerate((0.05, 0.1, 0.15, 0.2, 0.3), 1):
    found = drawn_corruptions.draw(table, image, 'brightness', severity)
    # The value of HSV is the largest channel; the others keep their ratio.
    value = image.max(-1, keepdims=True).astype(float)
    expected = image * np.clip(value + 255 * amount, 0, 255) / value
    assert np.max(np.abs(found - expected)) <= 1.01


def test_cifar_boxes_and_zooms_follow_their_formulas():
  image, table = _image(32), drawn_corruptions.CIFAR_C
  flat = np.full([32, 32, 3], 90, np.uint8)
  for name in ('pixelate', 'zoom_blur', 'defocus_blur', 'motion_blur'):
    for severity in (1, 5):
      np.random.seed(0)
      found = drawn_corruptions.draw(table, flat, name, severity)
      assert np.max(np.abs(found.astype(int) - 90)) <= 1, name
      assert (
        drawn_corruptions.draw(table, image, name, severity) != image
      ).any()
  # At severity 1 a disk below one pixel leaves the centre of a 3 x 3 Gaussian.
  found = drawn_corruptions.draw(table, image, 'defocus_blur', 1).astype(float)
  taps = np.exp(-np.array([1, 0, 1]) / (2 * 0.4**2))
  taps /= taps.sum()
  padded = np.pad(image.astype(float), ((1, 1), (1, 1), (0, 0)), 'reflect')
  expected = sum(
    taps[i] * taps[j] * padded[i : i + 32, j : j + 32]
    for i in range(3)
    for j in range(3)
  )
  assert np.max(np.abs(found - expected)) <= 1.01


def test_cifar_fog_keeps_the_brightest_value_in_range():
  image, table = _image(32), drawn_corruptions.CIFAR_C
  means = []
  for severity in range(1, 6):
    np.random.seed(0)
    found = drawn_corruptions.draw(table, image, 'fog', severity) / 255
    amount = (0.2, 0.5, 0.75, 1, 1.5)[severity - 1]
    top = image.max() / 255
    # The fractal spans [0, 1]; so does what fog adds, times this.
    low = image / 255 * top / (top + amount)
    assert (found >= low - 1 / 255).all()
    assert (found <= low + amount * top / (top + amount)).all()
    means.append(np.std(found))
  assert means[4] < means[0]


def test_every_cifar_corruption_is_weaker_than_imagenets():
  image = _image(32)
  for name in corruptions.NAMES:
    if name == 'glass_blur':
      continue  # Numba compiles the package's for seconds.
    changes = []
    for strengths in (corruptions.CIFAR_C, corruptions.PACKAGE):
      found = [
        corruptions.corrupt(image, name, 3, 0, n, strengths) for n in range(4)
      ]
      changes.append(np.abs(np.array(found, float) - image).mean())
    if name != 'elastic_transform':  # The package's is a weak one of its own.
      assert changes[0] < changes[1], name


def test_glass_blur_copies_neighbours():
  image = _image(32)
  np.random.seed(0)
  found = drawn_corruptions.draw(
    drawn_corruptions.CIFAR_C, image, 'glass_blur', 1
  )
  # A blur of 0.05 pixels is none: each pixel is one of its neighbours.
  for row in range(2, 30):
    for column in range(2, 30):
      near = image[row - 2 : row + 1, column - 2 : column + 1].reshape(-1, 3)
      distance = np.abs(near.astype(int) - found[row, column]).max(1)
      assert distance.min() <= 1, (row, column)
