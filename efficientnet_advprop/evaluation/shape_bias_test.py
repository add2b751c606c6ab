import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.data import sources
from efficientnet_advprop.evaluation import evaluator
from efficientnet_advprop.evaluation import shape_bias
from efficientnet_advprop.testing import tiny_data

pytestmark = pytest.mark.once

_TEST = config_lib.NamedTestConfig(split='stylized', cue='texture')
_CONFIG = config_lib.from_dict(
  {
    'model': {'image_size': 8},
    'data': {
      'num_classes': 10,
      'num_train_images': 2500,
      'num_eval_images': 500,
    },
    'train': {'batch_size': 16},
    'eval': {'batch_size': 96},  # Leaves 20 images for the last batch.
  }
)


class _Answers(tf.keras.Model):
  """Answers by the mean color of an image, in ten shades."""

  def call(self, inputs, training=False, domain='main'):
    shade = tf.reduce_mean(inputs, [1, 2, 3]) * 10 + 5
    return -((shade[:, None] - tf.range(10, dtype=tf.float32)) ** 2)


def _evaluate(config, test=_TEST):
  strategy = tf.distribute.OneDeviceStrategy('CPU:0')
  return evaluator.Evaluator(config, strategy, _Answers()).evaluate(test)


def test_only_conflicts_count():
  answers, shapes, textures = (
    [0, 1, 2, 0, 3, 0],
    [0, 1, 0, 0, 0, 1],
    [0, 0, 2, 1, 2, 0],
  )
  batch = {
    'label': tf.constant(shapes),
    'cue_label': tf.constant(textures),
    'weight': tf.constant([1.0, 1, 1, 1, 1, 0]),
  }
  sums = shape_bias.conflict_sums(tf.one_hot(answers, 4), batch)
  # The first agrees, the last is padding.
  np.testing.assert_array_equal(sums, [4, 2, 1])


def test_shape_bias_is_the_share_of_shape_among_either():
  found = shape_bias.figures([8, 3, 1], 'texture', 'stylized')
  assert found == {
    'cue': 'texture',
    'num_conflicts': 8,
    'shape_accuracy': 0.375,
    'cue_accuracy': 0.125,
    'shape_bias': 0.75,
  }
  assert (
    shape_bias.figures([8, 0, 0], 'texture', 'stylized')['shape_bias'] is None
  )
  with pytest.raises(errors.DataError, match=r'^stylized: no image whose'):
    shape_bias.figures([0, 0, 0], 'texture', 'stylized')


def test_a_test_s_figures_are_those_of_its_images():
  result = _evaluate(_CONFIG)
  model, labels = _Answers(), []
  for cue in ('class', 'texture'):
    source = sources.with_cue(sources.find(_CONFIG.data, 'stylized'), cue)
    batches = pipeline.eval_dataset(_CONFIG, source, batch_size=100)
    batches = list(batches.as_numpy_iterator())
    labels.append(np.concatenate([batch['cue_label'] for batch in batches]))
  shape, texture = labels
  answers = np.concatenate(
    [model(batch['image']).numpy().argmax(1) for batch in batches]
  )
  differs = shape != texture
  by_shape = np.mean((answers == shape)[differs])
  by_texture = np.mean((answers == texture)[differs])
  assert result['num_examples'] == 500
  assert result['num_conflicts'] == differs.sum()
  assert 400 < differs.sum() < 500
  assert result['top_1_accuracy'] == pytest.approx(np.mean(answers == shape))
  assert result['shape_accuracy'] == pytest.approx(by_shape)
  assert result['cue_accuracy'] == pytest.approx(by_texture)
  bias = by_shape / (by_shape + by_texture)
  assert result['shape_bias'] == pytest.approx(bias)


def test_records_without_the_cue_are_named():
  data = dataclasses.replace(_CONFIG.data, dir='')
  config = dataclasses.replace(_CONFIG, data=data)
  test = dataclasses.replace(_TEST, cue='sound')
  with pytest.raises(errors.DataError) as caught:
    _evaluate(config, test)
  expected = r'record 0: image/sound/label is missing or not in 1..10'
  assert expected in str(caught.value) and '\n' not in str(caught.value)


def test_class_folders_have_no_cue(tmp_path):
  for name in 'abc':
    folder = tmp_path / 'validation' / name
    folder.mkdir(parents=True)
    (folder / '0.png').write_bytes(tiny_data.encoded_image(0))
  config = tiny_data.config(tmp_path, num_eval_images=3)
  with pytest.raises(errors.DataError, match='only TFRecords can name a cue'):
    _evaluate(config, config_lib.NamedTestConfig(cue='texture'))
