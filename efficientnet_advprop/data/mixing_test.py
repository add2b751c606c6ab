import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.data import mixing

pytestmark = pytest.mark.once


def _batch(size=64, side=8):
  """Images of one value each, by which a mix shows its shares."""
  values = np.linspace(-1, 1, size, dtype=np.float32)
  images = np.tile(values[:, None, None, None], [1, side, side, 3])
  return {
    'image': tf.constant(images),
    'label': tf.range(size) % 10,
    'seed': tf.stack([tf.fill([size], 3), tf.range(size)], 1),
  }


def _mix(batch, **alphas):
  data = config_lib.DataConfig(**alphas)
  run = lambda batch: mixing.mix(batch, data, 10)
  mixed = tf.function(run)(batch)
  eager = run(batch)
  for name, value in mixed.items():
    np.testing.assert_array_equal(value, eager[name])
  return {name: value.numpy() for name, value in mixed.items()}


def _shares(batch, mixed):
  """The share of the own image, of all pixels, by their values."""
  images = batch['image'].numpy()
  others = images.reshape(-1, 2, *images.shape[1:])[:, ::-1]
  others = others.reshape(images.shape)
  return ((mixed['image'] - others) / (images - others)).mean((1, 2, 3))


@pytest.mark.parametrize(
  'alphas',
  [
    dict(mixup_alpha=0.2),
    dict(cutmix_alpha=1.0),
    dict(mixup_alpha=0.2, cutmix_alpha=1.0),
  ],
)
def test_labels_have_the_shares_of_the_pixels(alphas):
  batch = _batch()
  mixed = _mix(batch, **alphas)
  shares = _shares(batch, mixed)
  assert shares.min() >= -1e-5 and shares.max() <= 1 + 1e-5
  assert np.ptp(shares) > 0.5
  labels = batch['label'].numpy()
  others = labels.reshape(-1, 2)[:, ::-1].reshape(-1)
  rows = np.arange(len(labels))
  soft = mixed['soft_label']
  np.testing.assert_allclose(soft[rows, labels], shares, atol=1e-4)
  np.testing.assert_allclose(soft[rows, others], 1 - shares, atol=1e-4)
  np.testing.assert_allclose(soft.sum(1), 1, atol=1e-6)
  np.testing.assert_array_equal(soft.argmax(1), mixed['label'])


def test_cutmix_pastes_boxes():
  batch = _batch()
  mixed = _mix(batch, cutmix_alpha=1.0)['image']
  for row, image in enumerate(mixed[..., 0]):
    own, other = batch['image'][row, 0, 0, 0], batch['image'][row ^ 1, 0, 0, 0]
    pasted = np.isclose(image, other, atol=1e-6)
    assert (pasted | np.isclose(image, own, atol=1e-6)).all()
    rows, columns = pasted.any(1), pasted.any(0)
    np.testing.assert_array_equal(pasted, np.outer(rows, columns))


def test_both_kinds_take_half_of_the_images():
  batch = _batch(400)
  mixed = _mix(batch, mixup_alpha=1.0, cutmix_alpha=1.0)['image']
  values = [len(np.unique(image[..., 0].round(5))) for image in mixed]
  shares = _shares(batch, {'image': mixed})
  is_cut = np.array(values) == 2
  # A box may be empty or the whole image, which shows in one value.
  is_cut |= (shares < 1e-5) | (shares > 1 - 1e-5)
  assert 0.4 < is_cut.mean() < 0.6


@pytest.mark.parametrize('alpha', [0.2, 1.0])
def test_shares_follow_the_beta_distribution(alpha):
  seeds = tf.stack([tf.fill([4000], 7), tf.range(4000)], 1)
  numbers = mixing._beta(seeds, alpha).numpy()
  assert numbers.mean() == pytest.approx(0.5, abs=0.02)
  variance = 1 / (4 * (2 * alpha + 1))
  assert numbers.var() == pytest.approx(variance, rel=0.06)


def test_halves_of_a_batch_are_mixed_as_the_whole():
  batch = _batch(16)
  whole = _mix(batch, mixup_alpha=0.5, cutmix_alpha=1.0)
  half = {name: value[8:] for name, value in batch.items()}
  part = _mix(half, mixup_alpha=0.5, cutmix_alpha=1.0)
  for name, value in part.items():
    np.testing.assert_array_equal(value, whole[name][8:])


def test_both_views_are_mixed_alike():
  batch = _batch(8)
  batch['augmented_image'] = -batch['image']
  mixed = _mix(batch, mixup_alpha=0.5, cutmix_alpha=1.0)
  np.testing.assert_allclose(
    mixed['augmented_image'], -mixed['image'], atol=1e-6
  )
