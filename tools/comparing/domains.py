"""Distances between the norms of two domains, layer by layer.

With m, v the moving mean and variance (epsilon added, as the norm does) of one
domain, and m', v' those of the other:

  symmetric KL     ((v + d^2) / v' + (v' + d^2) / v) / 2 - 1 for d = m' - m: the
                   sum of both divergences of the normal distributions, in nats
  mean shift       |d| / sqrt((v + v') / 2), in standard deviations
  variance ratio   |ln(v' / v)|: 0.69 where one is twice the other
  gamma, beta      |gamma' - gamma|, |beta' - beta|
"""

from collections.abc import Mapping, Sequence
import os
from typing import Any

import numpy as np

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import files
from efficientnet_advprop.base import paths
from efficientnet_advprop.evaluation import tables
from efficientnet_advprop.layers import normalization
from efficientnet_advprop.layers.normalization import NORM_VARIABLES
from efficientnet_advprop.weights import loading

import tensorflow as tf  # isort: skip

_MAX_TICKS = 40
_TITLES = {
  'symmetric_kl': 'symmetric KL',
  'mean_shift': 'mean shift',
  'log_variance_ratio': 'variance ratio',
  'gamma_difference': 'gamma',
  'beta_difference': 'beta',
}
# The plots: title of the vertical axis, whether it is logarithmic, distances.
_PANELS = (
  ('symmetric KL, nats', True, ('symmetric_kl',)),
  ('moving statistics', False, ('mean_shift', 'log_variance_ratio')),
  ('gamma and beta', False, ('gamma_difference', 'beta_difference')),
)

Distances = dict[str, Any]


def distances(
  main: Mapping[str, np.ndarray],
  auxiliary: Mapping[str, np.ndarray],
  epsilon: float,
) -> dict[str, float]:
  """Returns the distances between the norms of two domains.

  Args:
    main: gamma, beta, moving_mean and moving_variance, [channels].
    auxiliary: the same of the other domain.
    epsilon: of the norm.

  Returns:
    Means over channels of what the module docstring defines. All are 0 for
    equal norms, and none changes if the domains are exchanged.
  """
  both = [
    {name: np.asarray(value, np.float64) for name, value in norm.items()}
    for norm in (main, auxiliary)
  ]
  (mean, other_mean), (variance, other_variance) = (
    [norm[name] for norm in both] for name in ('moving_mean', 'moving_variance')
  )
  variance, other_variance = variance + epsilon, other_variance + epsilon
  square = (other_mean - mean) ** 2
  ratio = other_variance / variance
  kl = (ratio + 1 / ratio + square / variance + square / other_variance) / 2 - 1
  by_channel = {
    'symmetric_kl': kl,
    'mean_shift': np.sqrt(2 * square / (variance + other_variance)),
    'log_variance_ratio': np.abs(np.log(ratio)),
    **{
      f'{name}_difference': np.abs(both[1][name] - both[0][name])
      for name in ('gamma', 'beta')
    },
  }
  return {name: float(values.mean()) for name, values in by_channel.items()}


def compare(model: tf.keras.Model, domain: str) -> list[Distances]:
  """Returns the distances of a domain's norms from the main ones.

  Args:
    model: any network whose norms are `AuxBatchNormalization`.
    domain: one that its norms know.

  Returns:
    For each norm, from the first layer to the last, `layer`, `channels` and
    the `distances`.
  """

  def values(norm: tf.keras.layers.BatchNormalization) -> dict[str, np.ndarray]:
    return {name: getattr(norm, name).numpy() for name in NORM_VARIABLES}

  found = []
  for norm in model.submodules:
    if isinstance(norm, normalization.AuxBatchNormalization):
      both = values(norm), values(norm.norm_of(domain))
      found.append(
        {
          'layer': norm.gamma.name.rpartition('/norm/')[0],
          'channels': int(norm.gamma.shape[0]),
          **distances(*both, norm.epsilon),
        }
      )
  return found


def load(model_dir: str, weights: str) -> tuple[tf.keras.Model, int]:
  """Loads the network of a run, and the step of its newest checkpoint.

  Args:
    model_dir: folder of the run.
    weights: `ema` or `raw`.

  Raises:
    CheckpointError: there is no checkpoint that can be read.
    ConfigError: there is no run, or its norms know the main domain only.
  """
  path = os.path.join(model_dir, paths.CONFIG)
  config = config_lib.load_config(path)
  if not config.auxiliary_domains:
    allowed = 'advprop, fine_grained: others have one set of norms'
    error = config_lib.ConfigError('train.method', config.train.method, allowed)
    raise error.under(path)
  return loading.restored(config, model_dir, weights)


def format_distances(found: Sequence[Distances]) -> str:
  """Formats a row for each norm, and the mean of all norms below."""
  rows = [
    [line['layer'], str(line['channels'])]
    + [f'{line[name]:.4f}' for name in _TITLES]
    for line in found
  ]
  means = [np.mean([line[name] for line in found]) for name in _TITLES]
  rows.append(['mean of layers', '', *(f'{mean:.4f}' for mean in means)])
  return tables.format_table(['layer', 'channels', *_TITLES.values()], rows)


def plot(found: Mapping[str, Sequence[Distances]], path: str) -> None:
  """Draws the distances over the layers, a color for each line, as a PNG.

  Args:
    found: what `compare` returns, by domain.
    path: of the PNG.

  Raises:
    DataError: matplotlib is missing.
  """
  try:
    from matplotlib import figure as figure_lib  # Optional.
  except ImportError:
    raise errors.DataError(
      'domains.png needs matplotlib: pip install -r requirements-results.txt'
    ) from None
  layers = [line['layer'] for line in next(iter(found.values()))]
  figure = figure_lib.Figure(figsize=(10, 8), layout='constrained')
  panels = figure.subplots(len(_PANELS), sharex=True)
  for axes, (title, is_logarithmic, names) in zip(panels, _PANELS):
    for domain, lines in found.items():
      for name in names:
        values = [line[name] for line in lines]
        label = f'{domain}: {_TITLES[name]}'
        axes.plot(values, 'o-', markersize=3, linewidth=1, label=label)
    if is_logarithmic:
      # Linear near 0, where the norms of two domains are still equal.
      axes.set_yscale('symlog', linthresh=1e-3)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(title)
    axes.grid(alpha=0.3)
    axes.legend(loc='best', fontsize=8)
  step = -(-len(layers) // _MAX_TICKS)
  ticks = range(0, len(layers), step)
  panels[-1].set_xticks(ticks, [layers[i] for i in ticks], rotation=90)
  panels[-1].tick_params(axis='x', labelsize=7)
  panels[0].set_title('Distance of auxiliary norms from the main norms')
  figure.savefig(path, dpi=120)


def report(model_dir: str, output_dir: str, weights: str) -> str:
  """Compares the domains of a run, and writes domains.json and domains.png.

  Args:
    model_dir: folder of the run.
    output_dir: folder for the files.
    weights: `ema` or `raw`.

  Returns:
    The table of each domain.

  Raises:
    CheckpointError: there is no checkpoint that can be read.
    ConfigError: there is no run, or its norms know the main domain only.
    DataError: matplotlib is missing; all but the plot is written.
  """
  model, step = load(model_dir, weights)
  found = {domain: compare(model, domain) for domain in model.auxiliary_domains}
  os.makedirs(output_dir, exist_ok=True)
  result = {'step': step, 'weights': weights, 'domains': found}
  files.write_json(os.path.join(output_dir, 'domains.json'), result, indent=2)
  plot(found, os.path.join(output_dir, 'domains.png'))
  return '\n\n'.join(
    f'{domain} against main, step {step}, weights {weights}\n\n'
    f'{format_distances(lines)}'
    for domain, lines in found.items()
  )
