import json

import h5py
import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.evaluation import corruptions
from tools import compare_fit
from tools.comparing import fitting

_SETTING = fitting.Setting(
  width=0.35,
  image_size=32,
  train_images=4,
  eval_images=2,
  epochs=1,
  batch_size=2,
)


def _line(cell, seed, clean, setting=_SETTING):
  accuracies = {'clean': clean, 'corrupted': clean - 9}
  settings = fitting.in_results(setting)
  return {
    'cell': cell,
    'seed': seed,
    'setting': settings,
    'accuracies': accuracies,
  }


def test_a_summary_has_means_and_gains_by_seed():
  lines = [
    _line(cell, seed, clean)
    for cell, cleans in (('vanilla', (50, 54)), ('advprop', (51, 53)))
    for seed, clean in enumerate(cleans)
  ]
  assert fitting.summary(lines) == {
    'vanilla_clean': 52,
    'advprop_clean': 52,
    'advprop_clean_gains': [1, -1],
    'vanilla_corrupted': 43,
    'advprop_corrupted': 43,
    'advprop_corrupted_gains': [1, -1],
  }


def test_labels_start_at_zero_and_missing_files_are_named(tmp_path):
  images, labels = fitting.load('testdata', 'validation', 20)
  assert images.shape == (20, 40, 40, 3) and images.dtype == np.uint8
  assert set(labels) <= set(range(10))
  with pytest.raises(ValueError, match='a folder of train-'):
    fitting.load(str(tmp_path), 'train', 1)


def test_the_network_resizes_and_scales_inside():
  network = fitting.build(_SETTING)
  assert network(tf.zeros([1, 40, 40, 3])).shape == [1, 10]


def test_only_missing_runs_are_made(tmp_path, monkeypatch):
  """A line that a kill cut, and lines of other settings, do not count."""
  path = tmp_path / 'fit.jsonl'
  other = _line('vanilla', 1, 60, _SETTING._replace(epochs=9))
  kept = [_line('vanilla', 0, 50), other]
  text = ''.join(json.dumps(line) + '\n' for line in kept)
  path.write_text(text + '{"cell": "advprop", "se')
  made = []

  def run(cell, seed, data, setting):
    made.append((cell, seed))
    return _line(cell, seed, 55, setting)

  monkeypatch.setattr(fitting, 'run', run)
  monkeypatch.setattr(fitting, 'load_all', lambda *_: {})
  wanted = ['vanilla', 'advprop'], [0, 1], '', _SETTING, str(path), 'command'
  lines = fitting.run_all(*wanted)
  assert made == [('advprop', 0), ('vanilla', 1), ('advprop', 1)]
  assert [line['accuracies']['clean'] for line in lines] == [50, 55, 55, 55]
  assert lines[1]['command'] == 'command'
  assert fitting.read_lines(str(path)) == [*kept, *lines[1:]]
  assert fitting.run_all(*wanted) == lines and len(made) == 3


def _tiny(setting):
  del setting
  layers = tf.keras.layers
  return tf.keras.Sequential(
    [
      tf.keras.Input((32, 32, 3)),
      layers.Conv2D(4, 3, 4),
      layers.BatchNormalization(),
      layers.GlobalAveragePooling2D(),
      layers.Dense(10),
    ]
  )


def test_a_run_names_its_accuracies_and_trains_as_long_as_it_says(monkeypatch):
  monkeypatch.setattr(fitting, 'build', _tiny)
  monkeypatch.setattr(corruptions, 'NAMES', ('fog', 'contrast'))
  images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3))
  pair = images.astype('uint8'), np.arange(4)
  data = dict.fromkeys(('train', 'clean', 'fog', 'contrast'), pair)
  steps = []
  batches = fitting._batches

  def counted(*args):
    made = batches(*args)
    steps.append(len(made))
    return made

  monkeypatch.setattr(fitting, '_batches', counted)
  line = fitting.run('long_vanilla', 0, data, _SETTING)
  assert steps == [2] and line['epochs'] == 3
  found = line['accuracies']
  assert set(found) == {'clean', 'corrupted', 'fog', 'contrast'}
  mean = (found['fog'] + found['contrast']) / 2
  assert found['corrupted'] == pytest.approx(mean, abs=0.01)


def test_mirroring_is_of_the_seed_and_keeps_images_and_labels_together():
  images = np.zeros((6, 1, 2, 1), 'uint8')
  images[:, 0, 0, 0] = np.arange(6) + 1

  def epoch(seed):
    pairs = fitting._batches(images, np.arange(6), seed, 2)
    return [(x.numpy(), y.numpy()) for x, y in pairs]

  first = epoch(0)
  for x, y in first:
    np.testing.assert_array_equal(x.max((1, 2, 3)), y + 1)
  sides = np.concatenate([x[:, 0, 0, 0] > 0 for x, _ in epoch(0) + epoch(1)])
  assert 0 < sides.mean() < 1
  assert sorted(np.concatenate([y for _, y in first])) == list(range(6))


@pytest.mark.parametrize('kernel', ['depthwise_kernel', 'kernel'])
def test_weights_come_by_the_names_of_layers(tmp_path, kernel):
  """Keras 3 names the kernels of depthwise convolutions otherwise."""
  inputs = tf.keras.Input((8, 8, 3))
  x = tf.keras.layers.DepthwiseConv2D(3, name='deep')(inputs)
  network = tf.keras.Model(inputs, tf.keras.layers.Dense(2, name='top')(x))
  values = [np.random.normal(size=w.shape) for w in network.weights]
  path = str(tmp_path / 'weights.h5')
  with h5py.File(path, 'w') as file:
    for weight, value in zip(network.weights, values):
      name = weight.name.replace('depthwise_kernel', kernel)
      file[f'model_weights/base/{name}'] = value
      file[f'optimizer_weights/{name}'] = 0 * value
  fitting.load_weights(network, path)
  for weight, value in zip(network.weights, values):
    np.testing.assert_allclose(weight, value, rtol=1e-6)
  with h5py.File(path, 'a') as file:
    del file['model_weights/base/top/bias:0']
  with pytest.raises(ValueError, match='the layer top has a bias'):
    fitting.load_weights(network, path)


def test_a_line_does_not_know_folders(tmp_path):
  (tmp_path / 'net.h5').write_bytes(b'weights')
  setting = _SETTING._replace(weights=str(tmp_path / 'net.h5'))
  weights = fitting.in_results(setting)['weights']
  assert weights.startswith('net.h5, SHA-256 9a129038')


def test_unknown_cells_and_seeds_are_refused():
  class Values:
    cells, seeds = ['advprob'], ['0']

  with pytest.raises(ValueError, match='did you mean advprop'):
    compare_fit._check(Values)
  Values.cells, Values.seeds = ['advprop'], ['-1']
  with pytest.raises(ValueError, match='seeds: got'):
    compare_fit._check(Values)
