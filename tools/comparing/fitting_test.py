import numpy as np
import pytest
import tensorflow as tf

from tools.comparing import fitting


def test_a_summary_has_means_and_gains_by_seed():
  results = [
    {'method': method, 'seed': seed, 'clean': clean, 'corrupted': clean - 9}
    for method, cleans in (('vanilla', (50, 54)), ('advprop', (51, 53)))
    for seed, clean in enumerate(cleans)
  ]
  assert fitting.summary(results) == {
    'vanilla_clean': 52,
    'advprop_clean': 52,
    'gains_clean': [1, -1],
    'vanilla_corrupted': 43,
    'advprop_corrupted': 43,
    'gains_corrupted': [1, -1],
  }


def test_labels_start_at_zero_and_missing_files_are_named(tmp_path):
  images, labels = fitting.load('testdata', 'validation', 20)
  assert images.shape == (20, 40, 40, 3) and images.dtype == np.uint8
  assert set(labels) <= set(range(10))
  with pytest.raises(ValueError, match='a folder of train-'):
    fitting.load(str(tmp_path), 'train', 1)


def test_the_network_resizes_and_scales_inside():
  network = fitting.build(32)
  assert network(tf.zeros([1, 40, 40, 3])).shape == [1, 10]
