"""Compound scaling (Tan and Le, ICML 2019) of filters and repeats."""

import math

from efficientnet_advprop import config


def round_filters(filters: int, width: float) -> int:
  """Scales a number of filters and rounds it to a multiple of 8.

  As the official `round_filters`: to the nearest, at least 8, and never more
  than 10% down.
  """
  scaled = filters * width
  rounded = max(8, int(scaled + 4) // 8 * 8)
  return rounded + 8 if rounded < 0.9 * scaled else rounded


def round_repeats(repeats: int, depth: float) -> int:
  """Scales a number of blocks and rounds it up."""
  return math.ceil(repeats * depth)


def stage_repeats(model_config: config.ModelConfig) -> list[int]:
  """Returns the number of blocks in each stage of a network.

  EfficientNet-Lites do not scale their first and last stage.
  """
  architecture = model_config.architecture
  repeats = [
    round_repeats(number, model_config.depth_coefficient)
    for number in architecture.repeats
  ]
  if not architecture.scales_ends:
    repeats[0], repeats[-1] = architecture.repeats[0], architecture.repeats[-1]
  return repeats
