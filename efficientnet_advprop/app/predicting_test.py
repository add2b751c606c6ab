import csv
import dataclasses
import json
import os

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import predicting
from efficientnet_advprop.base import errors
from efficientnet_advprop.data import tfrecords
from efficientnet_advprop.export import sample_images
from efficientnet_advprop.export import saved_model
from efficientnet_advprop.export import tflite
from efficientnet_advprop.models import factory
from efficientnet_advprop.testing import tiny_data
from efficientnet_advprop.testing import tiny_network


@pytest.fixture(scope='module', name='config')
def _config(tmp_path_factory):
  directory = tmp_path_factory.mktemp('data')
  tiny_network.write_images(directory)
  return tiny_network.run_config(directory)


@pytest.fixture(scope='module', name='network')
def _network(config):
  network = factory.create_model(config.model, 3, ('adversarial',))
  images = sample_images.evenly_spaced(config, 'train', 30)
  tiny_network.fit(network, images)
  return network


@pytest.fixture(scope='module', name='model_dir')
def _model_dir(config, network, tmp_path_factory):
  directory = os.fspath(tmp_path_factory.mktemp('run'))
  tiny_network.write_run(config, network, directory)
  return directory


@pytest.fixture(scope='module', name='version')
def _version(config, model_dir, tmp_path_factory):
  export_dir = os.fspath(tmp_path_factory.mktemp('export'))
  version = tiny_network.write_version(config, model_dir, export_dir)
  model, _ = saved_model.restored_model(config, model_dir)
  with open(os.path.join(version, 'model.tflite'), 'wb') as file:
    file.write(tflite.convert(model, 'float32'))
  return version


@pytest.fixture(name='photos')
def _photos(config, tmp_path):
  """Three pictures, a folder deeper, and three that cannot be read."""
  folder = tmp_path / 'photos'
  (folder / 'more').mkdir(parents=True)
  for name in tiny_network.CLASS_NAMES:
    first = sorted(os.listdir(f'{config.data.dir}/validation/{name}'))[0]
    place = folder / 'more' if name == 'red' else folder
    with open(f'{config.data.dir}/validation/{name}/{first}', 'rb') as file:
      (place / f'{name}.jpg').write_bytes(file.read())
  (folder / 'cut.jpg').write_bytes((folder / 'blue.jpg').read_bytes()[:99])
  (folder / 'notes.png').write_text('no picture')
  (folder / 'new.webp').write_bytes(b'RIFFxxxxWEBP')
  (folder / 'notes.txt').write_text('not looked at')
  return folder


def _expected(config, network):
  """Probabilities of the validation images, in the order of the files."""
  images = sample_images.evenly_spaced(config, 'validation', 12)
  batch = next(images.batch(12).as_numpy_iterator())
  return tf.nn.softmax(network(batch['image'])).numpy(), batch['label']


def test_a_folder_is_classified_and_what_cannot_be_read_is_named(
  config, model_dir, photos, caplog
):
  result = predicting.run(config, model_dir, [os.fspath(photos)])
  lines = result.text.splitlines()
  rows = [line.split() for line in lines[2:8]]
  answers = {os.path.basename(row[0]): row[1] for row in rows}
  assert answers == {
    **{'blue.jpg': 'blue', 'green.jpg': 'green', 'red.jpg': 'red'},
    **{'cut.jpg': '-', 'notes.png': '-', 'new.webp': '-'},
  }
  assert (result.unreadable, result.exit_code) == (3, 1)
  assert lines[-1] == 'Not readable: 3'
  assert 'cut.jpg: cannot be decoded (99 bytes)' in caplog.text
  assert 'new.webp: not a JPEG, PNG, GIF or BMP picture' in caplog.text
  good = predicting.run(config, model_dir, [f'{photos}/*e*.jpg'])
  assert good.exit_code == 0 and good.text.count('.jpg') == 2


def test_every_kind_of_network_answers_alike(
  config, network, model_dir, version, photos
):
  expected, _ = _expected(config, network)
  files = [f'{config.data.dir}/validation']
  kinds = [model_dir, version, os.path.join(version, 'model.tflite'), network]
  for kind in kinds:
    names = tiny_network.CLASS_NAMES if kind is network else None
    found = predicting.predict(kind, files, class_names=names)
    assert [p.file for p in found] == sorted(p.file for p in found)
    for prediction, values in zip(found, expected):
      order = np.argsort(-values)
      names = [tiny_network.CLASS_NAMES[n] for n in order]
      assert [answer.class_name for answer in prediction.top] == names
      shares = [answer.probability for answer in prediction.top]
      np.testing.assert_allclose(shares, values[order], atol=1e-5)
  numbered = predicting.predict(network, os.fspath(photos / 'more' / 'red.jpg'))
  assert numbered[0].class_name == '2'


def test_records_are_classified(config, model_dir, photos, tmp_path):
  path = tmp_path / 'unlabelled-00000-of-00001'
  pictures = [
    (photos / f'{name}.jpg').read_bytes() for name in ('blue', 'green')
  ]
  records = [tfrecords.encode_example({'image/encoded': p}) for p in pictures]
  tiny_data.write_shard(path, [*records, b'no message'])
  found = predicting.predict(model_dir, os.fspath(path))
  assert [p.file for p in found] == [f'{path}:{n}' for n in range(3)]
  assert [p.class_name for p in found] == ['blue', 'green', None]
  assert 'without image/encoded' in found[2].problem


def test_outputs_are_csv_and_json_lines(config, model_dir, photos, tmp_path):
  csv_path = os.fspath(tmp_path / 'found.csv')
  result = predicting.run(config, model_dir, [os.fspath(photos)], csv_path)
  assert result.text.splitlines()[0] == f'6 predictions  {csv_path}'
  with open(csv_path, encoding='utf-8', newline='') as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 6
  by_name = {os.path.basename(row['file']): row for row in rows}
  assert by_name['red.jpg']['class'] == 'red'
  assert by_name['red.jpg']['class_4'] == ''
  total = sum(
    float(by_name['red.jpg'][f'probability{n}']) for n in ('', '_2', '_3')
  )
  assert total == pytest.approx(1, abs=1e-5)
  assert by_name['cut.jpg']['problem'].startswith('cannot be decoded')
  json_path = os.fspath(tmp_path / 'found.jsonl')
  predicting.run(config, model_dir, [os.fspath(photos)], json_path)
  with open(json_path, encoding='utf-8') as file:
    values = [json.loads(line) for line in file]
  for value, row in zip(values, rows):
    assert value['file'] == row['file']
    assert value.get('class', '') == row['class']
    assert len(value.get('top', [])) == (0 if row['problem'] else 3)


def test_what_is_wrong_is_one_line(config, model_dir, photos, tmp_path):
  for inputs, output, words in (
    ([], None, '^input: '),
    ([os.fspath(photos)], 'x.txt', r"^output: got 'x.txt'; .*\.csv or \.jsonl"),
    ([f'{tmp_path}/none*.jpg'], None, r'none\*\.jpg: no pictures'),
  ):
    with pytest.raises(errors.UserError, match=words) as error:
      predicting.run(config, model_dir, inputs, output)
    assert '\n' not in str(error.value)
  other = dataclasses.replace(config.eval, network='/nowhere/x.keras')
  changed = dataclasses.replace(config, eval=other)
  with pytest.raises(config_lib.ConfigError, match=r'^eval\.pixels: '):
    predicting.run(changed, model_dir, [os.fspath(photos)])


def test_published_weights_are_asked_by_their_file(tmp_path, photos):
  path = os.fspath(tmp_path / 'weights.h5')
  reference = tf.keras.applications.EfficientNetB0(weights=None)
  reference.save_weights(path)
  (found,) = predicting.predict(path, os.fspath(photos / 'blue.jpg'))
  assert len(found.top) == 5 and found.class_name.isdigit()
