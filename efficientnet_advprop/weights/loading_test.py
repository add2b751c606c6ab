import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import pretrained
from efficientnet_advprop.base import errors
from efficientnet_advprop.weights import loading


def _model(
  domains=('adversarial',), classes=10, width=0.25, depth=0.1, **settings
):
  return pretrained.build_model(
    'efficientnet-b0',
    classes,
    domains,
    image_size=16,
    width_coefficient=width,
    depth_coefficient=depth,
    **settings,
  )


@pytest.mark.parametrize('weights', ['ema', 'raw'])
def test_either_set_of_weights_is_restored(saved, weights):
  model_dir, model, average = saved
  restored = _model()
  assert loading.restore(restored, model_dir, weights) == 5
  source = average if weights == 'ema' else model
  for ours, theirs in zip(restored.variables, source.variables):
    np.testing.assert_array_equal(ours, theirs)


def test_a_model_without_auxiliary_domains_takes_the_main_ones(saved):
  model_dir, _, average = saved
  restored = _model(domains=())
  path = os.path.join(model_dir, 'checkpoints', 'ckpt-4')
  assert loading.restore(restored, path) == 4
  np.testing.assert_array_equal(
    restored.head.norm.moving_mean, average.head.norm.moving_mean
  )
  images = tf.random.stateless_uniform([2, 16, 16, 3], [0, 0], -1, 1)
  np.testing.assert_allclose(restored(images), average(images), atol=1e-6)


@pytest.mark.parametrize(
  'settings, message',
  [
    (dict(classes=7), 'there are 10 classes there and 7 here'),
    (dict(width=0.5), r'has the shape \(.*\), not \(.*; width or depth differ'),
    (dict(depth=0.6), r'missing blocks/\S+ and \d+ more; .* depth differ$'),
    (
      dict(domains=('augmented',)),
      r'missing \S+/auxiliary/augmented/beta .* no norms of the domain augm',
    ),
  ],
)
def test_another_network_is_refused_in_one_line(saved, settings, message):
  model = _model(**settings)
  before = [variable.numpy() for variable in model.variables]
  with pytest.raises(errors.CheckpointError, match=message) as caught:
    loading.restore(model, saved[0])
  assert '\n' not in str(caught.value) and saved[0] in str(caught.value)
  for variable, value in zip(model.variables, before):
    np.testing.assert_array_equal(variable, value)


def test_the_setting_that_differs_is_named(saved):
  """The config.yaml of the run is there to compare with."""
  place = os.path.join(saved[0], 'config.yaml')
  config = config_lib.from_dict(
    {'model': config_lib.to_dict(_model().model_config)}
  )
  with open(place, 'w', encoding='utf-8') as file:
    file.write(config_lib.to_yaml(config))
  try:
    for settings, message in (
      (
        dict(width=0.5),
        'there model.width_coefficient is 0.25, here',
      ),
      (dict(depth=0.6), 'there model.depth_coefficient is 0.1, here it is 0.6'),
      (dict(stem_stride=1, width=1), 'model.width_coefficient is 0.25, here'),
    ):
      with pytest.raises(errors.CheckpointError, match=message):
        loading.restore(_model(**settings), saved[0])
  finally:
    os.remove(place)


def test_nothing_is_said_of_values_without_use(saved, capfd, caplog):
  loading.restore(_model(domains=()), saved[0])
  assert capfd.readouterr().err == '' and not caplog.records


def test_a_damaged_checkpoint_is_passed_over(saved, tmp_path, caplog):
  folder = tmp_path / 'checkpoints'
  shutil.copytree(os.path.join(saved[0], 'checkpoints'), folder)
  (folder / 'ckpt-5.data-00000-of-00001').write_bytes(b'')
  assert loading.restore(_model(), str(tmp_path)) == 4
  assert 'ckpt-5' in caplog.text
  for path in folder.glob('ckpt-*.index'):
    path.write_bytes(b'no index')
  with pytest.raises(errors.CheckpointError, match='none of 3 checkpoints'):
    loading.restore(_model(), str(tmp_path))


def test_a_missing_checkpoint_is_said(tmp_path):
  with pytest.raises(errors.CheckpointError, match='no checkpoint found'):
    loading.restore(_model(), str(tmp_path))
