"""Draws one scene: a textured shape amid clutter, lit, blurred and noisy.

Lengths and places are in pixels of the finished image; colors are in [0, 1].
"""

from collections.abc import Callable, Sequence
import colorsys

import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFilter

SIZE = 40  # Height and width of an image, in pixels.
_SCALE = 3  # Drawn this many times larger, then averaged: smooth edges.


# --- Shapes: outlines around the origin, of about unit radius. ---------------


def _arc(
  radius: float, start: float, stop: float, center_x: float = 0.0
) -> list[tuple[float, float]]:
  """Returns points on a circle from angle `start` to `stop`, in degrees."""
  angles = np.radians(np.linspace(start, stop, 64))
  xs, ys = center_x + radius * np.cos(angles), radius * np.sin(angles)
  return list(zip(xs, ys))


def _polar(radii: Sequence[float]) -> list[tuple[float, float]]:
  """Returns a closed polygon: `radii` at equal angles, the first at the top."""
  angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
  return list(zip(radii * np.sin(angles), -(radii * np.cos(angles))))


def _heart() -> list[tuple[float, float]]:
  t = np.linspace(0, 2 * np.pi, 96)
  xs = 16 * np.sin(t) ** 3
  ys = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
  return list(zip(xs / 16, -(ys + 1) / 15))


def _mirrored(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
  return points + [(-x, y) for x, y in reversed(points)]


def _cross(width: float, length: float) -> list[tuple[float, float]]:
  right = [(width, -length), (width, -width), (length, -width)]
  return _mirrored(right + [(x, -y) for x, y in reversed(right)])


OUTLINES: dict[str, list[tuple[float, float]]] = {
  'arrow': _mirrored([(0, -1), (0.9, 0), (0.32, 0), (0.32, 0.95)]),
  'corner': [
    (-0.65, -0.95),
    (-0.05, -0.95),
    (-0.05, 0.05),
    (0.95, 0.05),
    (0.95, 0.65),
    (-0.65, 0.65),
  ],
  'crescent': _arc(1, 50, 310) + _arc(0.8, 287, 73, 0.41),
  'cross': _cross(0.31, 1),
  'disc': _arc(0.85, 0, 360),
  'heart': _heart(),
  'ring': _arc(0.98, 0, 360) + _arc(0.5, 360, 0),
  'square': _polar([1.08] * 4),
  'star': _polar([1.12, 0.46] * 5),
  'triangle': _polar([1.15] * 3),
}


# --- Textures: patterns in [0, 1] over coordinates in units of their period. -


def _lattice(table: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
  """Looks up a square table, whose unit cells repeat without end."""
  size = len(table)
  return table[np.floor(u).astype(int) % size, np.floor(v).astype(int) % size]


def _stripes(u, v, rng):
  del v, rng
  return u % 1 < 0.5


def _dots(u, v, rng):
  del rng
  u = u + 0.5 * (np.floor(v) % 2)
  return np.hypot(u % 1 - 0.5, v % 1 - 0.5) < 0.34


def _bricks(u, v, rng):
  del rng
  v = v * 1.3
  u = u * 0.65 + 0.5 * (np.floor(v) % 2)
  return (v % 1 > 0.24) & (u % 1 > 0.13)


def _waves(u, v, rng):
  del rng
  return (v + 0.32 * np.sin(np.pi * u)) % 1 < 0.5


def _checker(u, v, rng):
  del rng
  return (np.floor(1.3 * u) + np.floor(1.3 * v)) % 2


def _grid(u, v, rng):
  del rng
  return (u % 1 < 0.28) | (v % 1 < 0.28)


def _scales(u, v, rng):
  """Draws overlapping discs: each row covers the one above; dark centres."""
  del rng
  pattern = np.zeros_like(u)
  for row in (1, 0):
    rows = np.floor(2 * v) + row
    x = (u + 0.5 * (rows % 2)) % 1 - 0.5
    distance = np.hypot(x, v - 0.5 * rows + 0.5) / 0.62
    pattern = np.where(distance < 1, distance**3, pattern)
  return pattern


def _speckle(u, v, rng):
  return _lattice(rng.random((64, 64)), 2.2 * u, 2.2 * v) < 0.42


def _cells(u, v, rng):
  """Draws Voronoi cells of jittered lattice points, separated by seams."""
  u, v = 0.9 * u, 0.9 * v
  table = rng.random((32, 32, 2))
  nearest = np.full(u.shape, 9.0)
  second = nearest.copy()
  for du in (-1, 0, 1):
    for dv in (-1, 0, 1):
      jitter = _lattice(table, u + du, v + dv)
      x = np.floor(u) + du + jitter[..., 0] - u
      y = np.floor(v) + dv + jitter[..., 1] - v
      distance = np.hypot(x, y)
      second = np.minimum(second, np.maximum(nearest, distance))
      nearest = np.minimum(nearest, distance)
  return second - nearest > 0.2


def _weave(u, v, rng):
  """Draws bundles of three threads, alternately horizontal and vertical."""
  del rng
  u, v = 0.6 * u, 0.6 * v
  lying = (np.floor(u) + np.floor(v)) % 2 < 1
  return np.where(lying, (3 * v) % 1, (3 * u) % 1) < 0.6


TEXTURES: dict[str, Callable[..., np.ndarray]] = {
  'bricks': _bricks,
  'cells': _cells,
  'checker': _checker,
  'dots': _dots,
  'grid': _grid,
  'scales': _scales,
  'speckle': _speckle,
  'stripes': _stripes,
  'waves': _waves,
  'weave': _weave,
}


# --- Painting, on float arrays of _SCALE * SIZE pixels a side. ---------------


def polygon_mask(points: np.ndarray) -> Image.Image:
  """Fills a polygon, [corners, 2] (x, y), on a black canvas ('L')."""
  mask = Image.new('L', (_SCALE * SIZE,) * 2)
  ImageDraw.Draw(mask).polygon([tuple(p) for p in points * _SCALE], fill=255)
  return mask


def _shape_mask(
  shape: str, center: np.ndarray, radius: float, rng: np.random.Generator
) -> Image.Image:
  """Turns a shape by any angle, and stretches it a little along any axis."""
  turn, axis = rng.uniform(0, 2 * np.pi, 2)
  stretch = rng.uniform(0.88, 1.0)
  points = np.array(OUTLINES[shape]) @ rotation(turn)
  points = points @ rotation(axis) * [1 / stretch, stretch] @ rotation(-axis)
  return polygon_mask(center + radius * points)


def rotation(angle: float) -> np.ndarray:
  """Returns the matrix that turns row vectors by an angle in radians."""
  cos, sin = np.cos(angle), np.sin(angle)
  return np.array([[cos, sin], [-sin, cos]])


def _blob_mask(
  center: np.ndarray, radius: float, rng: np.random.Generator
) -> Image.Image:
  angles = np.linspace(0, 2 * np.pi, 48)
  radii = np.ones_like(angles)
  for waves in (2, 3, 4):
    phase = rng.uniform(0, 2 * np.pi)
    radii += rng.uniform(0, 0.22) * np.cos(waves * angles + phase)
  outline = np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)
  return polygon_mask(center + radius * outline)


def _stroke_mask(
  middle: np.ndarray, width: float, rng: np.random.Generator
) -> Image.Image:
  """Returns a bent stroke whose middle is near the place."""
  direction = np.array([1.0, 0.0]) @ rotation(rng.uniform(0, 2 * np.pi))
  reach = rng.uniform(7, 22, 2)
  t = np.linspace(-1, 1, 24)[:, None]
  bend = rng.uniform(-6, 6) * direction[::-1] * [1, -1]
  points = middle + np.where(t < 0, reach[0], reach[1]) * t * direction
  points = (points + t**2 * bend) * _SCALE
  mask = Image.new('L', (_SCALE * SIZE,) * 2)
  ImageDraw.Draw(mask).line(
    [tuple(p) for p in points], 255, round(width * _SCALE), 'curve'
  )
  return mask


def _rgb(hue: float, saturation: float, value: float) -> np.ndarray:
  """Converts a color; the hue is in degrees, the others are in [0, 1]."""
  return np.array(colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value))


def _fill(
  texture: str, tones: Sequence[np.ndarray], rng: np.random.Generator
) -> np.ndarray:
  """Paints a plane with a texture in two tones, at any angle and size."""
  axis = (np.arange(_SCALE * SIZE) + 0.5) / _SCALE
  cos, sin = rotation(rng.uniform(0, 2 * np.pi))[0]
  period = rng.uniform(4.2, 6.5)
  shift_u, shift_v = rng.uniform(0, 64, 2)
  u = (cos * axis[None] + sin * axis[:, None]) / period + shift_u
  v = (cos * axis[:, None] - sin * axis[None]) / period + shift_v
  pattern = np.asarray(TEXTURES[texture](u, v, rng), np.float64)[..., None]
  return tones[0] + pattern * (tones[1] - tones[0])


def _object_tones(hue: float, rng: np.random.Generator) -> list[np.ndarray]:
  """Draws a darker and a lighter tone of nearly the same hue."""
  hue, other_hue = hue + rng.normal(0, 15) + rng.normal(0, 5, 2)
  bright = _rgb(hue, rng.uniform(0.55, 0.95), rng.uniform(0.75, 1))
  if rng.random() < 0.35:
    pale = _rgb(other_hue, rng.uniform(0.08, 0.25), rng.uniform(0.9, 1))
    return [bright * rng.uniform(0.7, 0.9), pale]
  dark = _rgb(other_hue, rng.uniform(0.6, 1), rng.uniform(0.2, 0.4))
  return [dark, bright]


def _muted_tones(rng: np.random.Generator) -> list[np.ndarray]:
  """Draws two similar tones of a grayish color."""
  hue, saturation = rng.uniform(0, 360), rng.uniform(0.05, 0.45)
  value, contrast = rng.uniform(0.25, 0.8), rng.uniform(0.0, 0.1)
  return [
    _rgb(hue, saturation, value),
    _rgb(hue + rng.normal(0, 25), saturation, value + contrast),
  ]


def _paint(canvas: np.ndarray, mask: Image.Image, fill: np.ndarray) -> None:
  """Lays `fill` on the canvas where the mask is, with soft rim and shadow."""
  alpha = np.asarray(mask, np.float64)[..., None] / 255
  soft = np.asarray(mask.filter(ImageFilter.GaussianBlur(1.2 * _SCALE)))
  soft = soft[..., None] / 255
  canvas *= 1 - 0.45 * soft
  canvas += alpha * (fill * (0.72 + 0.28 * soft) - canvas)


def _random_texture(rng: np.random.Generator) -> str:
  return list(TEXTURES)[rng.integers(len(TEXTURES))]


def _paint_clutter(
  canvas: np.ndarray, place: np.ndarray, size: float, rng: np.random.Generator
) -> None:
  """Paints a blob of radius `size`, or a stroke about half as wide."""
  if rng.random() < 0.5:
    mask = _blob_mask(place, size, rng)
  else:
    mask = _stroke_mask(place, 0.55 * size, rng)
  tones = _object_tones(rng.uniform(0, 360), rng)
  if rng.random() < 0.6:
    tones = _muted_tones(rng)
  _paint(canvas, mask, _fill(_random_texture(rng), tones, rng))


def _photograph(canvas: np.ndarray, rng: np.random.Generator) -> Image.Image:
  """Lights the scene, shrinks it to SIZE, and adds blur and sensor noise."""
  slope = rng.uniform(0, 0.35) * np.array([1.0, 0.0])
  across, down = slope @ rotation(rng.uniform(0, 2 * np.pi))
  axis = np.linspace(-1, 1, _SCALE * SIZE)
  light = 1 + across * axis[None, :, None] + down * axis[:, None, None]
  light = light * rng.uniform(0.65, 1.15) * rng.uniform(0.85, 1.15, 3)  # Tint.
  scene = np.clip(canvas * light, 0, 1)
  image = Image.fromarray((scene * 255 + 0.5).astype(np.uint8)).reduce(_SCALE)
  image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.5)))
  noise = rng.normal(0, rng.uniform(1, 7), (SIZE, SIZE, 3))
  pixels = np.asarray(image, np.float64) + noise
  return Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))


def draw_image(
  shape: str, texture: str, hue: float, rng: np.random.Generator
) -> Image.Image:
  """Draws one RGB image of SIZE x SIZE pixels; the hue is in degrees."""
  canvas = np.empty((_SCALE * SIZE, _SCALE * SIZE, 3))
  canvas[:] = _fill(_random_texture(rng), _muted_tones(rng), rng)
  for _ in range(rng.integers(1, 4)):
    _paint_clutter(canvas, rng.uniform(0, SIZE, 2), rng.uniform(2, 4.5), rng)
  radius = rng.uniform(9, 15)
  center = SIZE / 2 + rng.uniform(-1, 1, 2) * (17 - radius) * 0.7
  mask = _shape_mask(shape, center, radius, rng)
  _paint(canvas, mask, _fill(texture, _object_tones(hue, rng), rng))
  if rng.random() < 0.4:
    offset = np.array([radius * rng.uniform(0.3, 1.0), 0.0])
    place = center + offset @ rotation(rng.uniform(0, 2 * np.pi))
    _paint_clutter(canvas, place, radius * rng.uniform(0.25, 0.45), rng)
  return _photograph(canvas, rng)
