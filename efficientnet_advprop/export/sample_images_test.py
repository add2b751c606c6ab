import numpy as np

from efficientnet_advprop.export import sample_images


def test_samples_come_from_all_classes(config):
  found = list(
    sample_images.evenly_spaced(config, 'validation', 3).as_numpy_iterator()
  )
  assert sorted(example['label'] for example in found) == [0, 1, 2]
  image = found[0]['image']
  assert image.shape == (32, 32, 3)
  assert np.min(image) >= -1 and np.max(image) <= 1
  every = sample_images.evenly_spaced(config, 'validation', 100)
  assert len({e['encoded'] for e in every.as_numpy_iterator()}) == 12
