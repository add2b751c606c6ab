import json

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.models import factory
from efficientnet_advprop.testing import tiny_runs
from efficientnet_advprop.weights import checkpoints
from tools.comparing import domains as domains_lib

_EPSILON = 1e-3


def _norm(mean, variance, gamma=1.0, beta=0.0):
  names = 'gamma', 'beta', 'moving_mean', 'moving_variance'
  return {
    name: np.atleast_1d(np.array(value, np.float32))
    for name, value in zip(names, (gamma, beta, mean, variance))
  }


def test_equal_norms_are_at_no_distance():
  norm = _norm([0, 3], [1e-9, 2], [1, -2], [3, 4])
  found = domains_lib.distances(norm, norm, _EPSILON)
  assert set(found.values()) == {0.0} and len(found) == 5


def test_the_order_of_the_domains_does_not_matter():
  first, second = _norm([0, 3], [1, 2], [1, 2]), _norm([1, 2], [4, 9], [0, 1])
  there = domains_lib.distances(first, second, _EPSILON)
  back = domains_lib.distances(second, first, _EPSILON)
  assert there == pytest.approx(back, rel=1e-12)


def test_symmetric_kl_is_the_integral_that_defines_it():
  """The sum of both divergences, by the trapezoidal rule."""
  mean, variance = np.array([0.3, -1.0]), np.array([0.5, 2.0])
  other_mean, other_variance = np.array([-0.2, 1.5]), np.array([1.5, 0.7])
  x = np.linspace(-30, 30, 60_001)[:, None]

  def log_density(m, v):
    v = v + _EPSILON
    return -((x - m) ** 2) / (2 * v) - np.log(2 * np.pi * v) / 2

  p, q = log_density(mean, variance), log_density(other_mean, other_variance)
  integrand = (np.exp(p) - np.exp(q)) * (p - q)
  expected = integrand.sum(0) * (x[1, 0] - x[0, 0])  # 0 at both ends.
  found = domains_lib.distances(
    _norm(mean, variance), _norm(other_mean, other_variance), _EPSILON
  )
  assert found['symmetric_kl'] == pytest.approx(expected.mean(), rel=1e-6)


def test_the_other_distances_are_means_over_channels():
  main = _norm([0, 0], [2 - _EPSILON] * 2, [1, 1], [0, 0])
  other = _norm([3, -1], [4 - _EPSILON, 2 - _EPSILON], [1.5, 1], [-2, 1])
  found = domains_lib.distances(main, other, _EPSILON)
  shift = (3 / 3**0.5 + 1 / 2**0.5) / 2
  assert found['mean_shift'] == pytest.approx(shift, rel=1e-6)
  assert found['log_variance_ratio'] == pytest.approx(np.log(2) / 2, rel=1e-6)
  assert found['gamma_difference'] == pytest.approx(0.25)
  assert found['beta_difference'] == pytest.approx(1.5)


def _config(method='fine_grained'):
  return config_lib.from_dict(
    {
      'model': tiny_runs.EFFICIENTNET,
      'data': {'num_classes': 10},
      'train': {'method': method},
    }
  )


@pytest.fixture(scope='module', name='run_dir')
def _run_dir(tmp_path_factory):
  """A run of two auxiliary domains; averaged, only one norm differs."""
  folder = tmp_path_factory.mktemp('run')
  config = _config()
  raw, average = (
    factory.create_model(config.model, 10, config.auxiliary_domains)
    for _ in range(2)
  )
  norm = average.blocks[1].depthwise.norm.norm_of('adversarial')
  norm.moving_mean.assign_add(tf.ones_like(norm.moving_mean))
  raw.head.norm.gamma.assign_add(tf.ones_like(raw.head.norm.gamma))
  step = tf.Variable(7, dtype=tf.int64)
  checkpoint = tf.train.Checkpoint(
    model=raw, ema=average, optimizer=tf.train.Checkpoint(_iterations=step)
  )
  directory = str(folder / 'checkpoints')
  checkpoints.CheckpointManager(checkpoint, directory, keep=1).save(7)
  (folder / 'config.yaml').write_text(config_lib.to_yaml(config))
  return folder


def test_a_run_s_domains_are_compared_layer_by_layer(run_dir, tmp_path):
  text = domains_lib.report(str(run_dir), str(tmp_path), 'ema')
  result = json.loads((tmp_path / 'domains.json').read_text())
  assert (result['step'], result['weights']) == (7, 'ema')
  layers = [line['layer'] for line in result['domains']['adversarial']]
  assert (layers[0], layers[-1]) == ('stem', 'head')
  assert 'block_1/depthwise' in layers and len(set(layers)) == len(layers)
  for domain, lines in result['domains'].items():
    assert f'{domain} against main, step 7' in text
    differing = {line['layer'] for line in lines if line['symmetric_kl']}
    moved = {'block_1/depthwise'} if domain == 'adversarial' else set()
    assert differing == moved
  # One standard deviation in every channel, of variance 1 + epsilon.
  (line,) = [
    line
    for line in result['domains']['adversarial']
    if line['layer'] == 'block_1/depthwise'
  ]
  assert line['mean_shift'] == pytest.approx(1 / 1.001**0.5, rel=1e-6)
  assert line['symmetric_kl'] == pytest.approx(1 / 1.001, rel=1e-6)


def test_raw_weights_are_others(run_dir, tmp_path):
  domains_lib.report(str(run_dir), str(tmp_path), 'raw')
  result = json.loads((tmp_path / 'domains.json').read_text())
  for lines in result['domains'].values():
    gammas = {line['layer']: line['gamma_difference'] for line in lines}
    assert gammas.pop('head') == pytest.approx(1)
    assert set(gammas.values()) == {0}


def test_the_plot_shows_every_distance(run_dir, tmp_path):
  pytest.importorskip('matplotlib')
  domains_lib.report(str(run_dir), str(tmp_path), 'ema')
  picture = tf.io.decode_png((tmp_path / 'domains.png').read_bytes()).numpy()
  assert picture.shape[:2] == (960, 1200)
  colors = {tuple(c) for c in picture[..., :3].reshape(-1, 3)[::7]}
  for number in range(4):  # Two domains, two distances in a panel.
    named = ('1f77b4', 'ff7f0e', '2ca02c', 'd62728')[number]
    assert tuple(bytes.fromhex(named)) in colors


def test_a_run_without_auxiliary_norms_is_refused(tmp_path):
  path = tmp_path / 'config.yaml'
  path.write_text(config_lib.to_yaml(_config('vanilla')))
  with pytest.raises(config_lib.ConfigError, match=r"'vanilla'; .*advprop"):
    domains_lib.load(str(tmp_path), 'ema')


def test_no_run_is_named(tmp_path):
  with pytest.raises(config_lib.ConfigError, match=r'config\.yaml'):
    domains_lib.load(str(tmp_path), 'ema')
