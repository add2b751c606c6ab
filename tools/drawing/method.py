"""Draws AdvProp in one picture: an adversarial image, and two sets of norms."""

from typing import Any

from matplotlib import figure as figure_lib
from matplotlib import patches
import numpy as np

_SIZE = (10.0, 3.1)  # Inches.
_DPI = 120
_AMPLIFICATION = 20
_MAIN, _AUXILIARY, _SHARED = '#2f6db5', '#d9772b', '#e9e9ec'
_INK = '#333333'

_Point = tuple[float, float]


def draw(
  path: str,
  clean: np.ndarray,
  adversarial: np.ndarray,
  answers: tuple[str, str],
  epsilon: float,
) -> None:
  """Writes the picture as a PNG.

  Args:
    path: of the PNG.
    clean: an image, [height, width, 3] in [-1, 1].
    adversarial: the same image after the attack.
    answers: what the network says about either, such as `ring, 76%`.
    epsilon: of the attack, in levels of 0-255.
  """
  figure = figure_lib.Figure(figsize=_SIZE, dpi=_DPI, facecolor='white')
  difference = _AMPLIFICATION * (adversarial - clean) / 2
  tiles = (
    ('clean image', (clean + 1) / 2, answers[0]),
    ('adversarial image', (adversarial + 1) / 2, answers[1]),
    (
      f'difference \N{MULTIPLICATION SIGN} {_AMPLIFICATION}',
      0.5 + difference,
      f'at most {epsilon:g} of 255 levels',
    ),
  )
  for column, (title, pixels, note) in enumerate(tiles):
    axes = figure.add_axes((0.012 + 0.158 * column, 0.25, 0.148, 0.5))
    axes.imshow(np.clip(pixels, 0, 1), interpolation='nearest')
    axes.set_title(title, fontsize=10, color=_INK)
    axes.set_xlabel(note, fontsize=9, color=_INK)
    axes.set_xticks([])
    axes.set_yticks([])
  axes = figure.add_axes((0.5, 0.0, 0.5, 1.0))
  axes.set_xlim(0, 100)
  axes.set_ylim(0, 66)
  axes.axis('off')
  _network(axes)
  figure.savefig(path)


def _network(axes: Any) -> None:
  """Draws two paths through shared convolutions and separate norms."""
  _text(axes, (50, 59), 'one network, two sets of norms', 10)
  rows = (
    (_MAIN, 44, 'clean', 'main'),
    (_AUXILIARY, 20, 'adversarial', 'auxiliary'),
  )
  for color, y, batch, norm in rows:
    _text(axes, (7, y), batch, 9, color)
    for left, right in ((15, 19), (30, 33), (47, 51), (62, 65), (79, 83)):
      _arrow(axes, (left, y), (right, y), color)
    for left in (33, 65):
      _box(axes, (left, y - 6), (14, 12), color, f'{norm}\nnorm')
    _text(axes, (88, y), 'loss', 9, color)
  for left in (19, 51):
    _box(axes, (left, 12), (11, 40), _SHARED, 'shared\nconvo-\nlution')
  _arrow(axes, (7, 41), (7, 23.5), _AUXILIARY)
  _text(axes, (12, 32), 'attack', 8.5, _AUXILIARY)
  _text(axes, (88, 32), '+', 13)
  note = 'one update of all weights; only the blue path is served'
  _text(axes, (50, 5), note, 9)


def _text(
  axes: Any, place: _Point, text: str, size: float, color: str = _INK
) -> None:
  axes.text(*place, text, ha='center', va='center', fontsize=size, color=color)


def _box(
  axes: Any, corner: _Point, size: _Point, color: str, text: str
) -> None:
  shape = patches.FancyBboxPatch(
    corner,
    *size,
    boxstyle='round,pad=0,rounding_size=1.2',
    facecolor=color,
    edgecolor='none',
  )
  axes.add_patch(shape)
  center = corner[0] + size[0] / 2, corner[1] + size[1] / 2
  _text(axes, center, text, 8.5, _INK if color == _SHARED else 'white')


def _arrow(axes: Any, start: _Point, end: _Point, color: str) -> None:
  style = dict(
    arrowstyle='-|>', color=color, linewidth=1.6, shrinkA=0, shrinkB=0
  )
  axes.annotate('', xy=end, xytext=start, arrowprops=style)
