import os

import pytest

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.data import sources
from efficientnet_advprop.testing import reading
from efficientnet_advprop.testing import tiny_data


def _write_folders(directory, split, per_class):
  for label, count in enumerate(per_class):
    for i in range(count):
      path = directory / split / f'class_{label}' / f'{i:02d}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(tiny_data.encoded_image(3 * i + label))


def _touch(path):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(tiny_data.encoded_image(0))


def test_class_folders_are_read(tmp_path):
  _write_folders(tmp_path, 'train', [7, 7, 6])
  _write_folders(tmp_path, 'validation', [3, 2, 2])
  (tmp_path / 'train' / 'class_0' / 'notes.txt').write_text('not an image')
  config = tiny_data.config(tmp_path, shuffle_window=2)
  for batches in (
    reading.training(config).take(5),
    reading.evaluation(config, 'validation'),
  ):
    seen = []
    for batch in batches.as_numpy_iterator():
      numbers = tiny_data.indices(batch['image'])
      assert [number % 3 for number in numbers] == batch['label'].tolist()
      seen += numbers
    assert set(seen) == set(range(max(seen) + 1))


def test_every_suffix_counts_as_an_image(tmp_path):
  for name in ('a.jpg', 'b.jpeg', 'c.JPEG', 'd.png', 'e.gif'):
    for label in '012':
      _touch(tmp_path / 'stylized' / label / name)
  config = tiny_data.config(tmp_path)
  assert sources.find(config.data, 'stylized').size == 12


def test_a_bad_image_file_is_named(tmp_path):
  _write_folders(tmp_path, 'train', [7, 7, 6])
  bad = tmp_path / 'train' / 'class_1' / '03.png'
  bad.write_bytes(b'nothing')
  dataset = reading.training(tiny_data.config(tmp_path))
  expected = f'{bad}: the image cannot be decoded (7 bytes)'
  assert reading.read_error(dataset) == expected


def test_an_empty_class_is_an_error(tmp_path):
  _write_folders(tmp_path, 'train', [10, 10])
  empty = tmp_path / 'train' / 'class_2'
  empty.mkdir()
  message = f'{empty}: the class folder holds no image'
  assert reading.find_error(tiny_data.config(tmp_path)) == message


def test_wrong_classes_are_an_error(tmp_path):
  _write_folders(tmp_path, 'train', [7, 7, 6])
  _write_folders(tmp_path, 'validation', [4, 3])
  message = reading.find_error(tiny_data.config(tmp_path), 'validation')
  assert message.endswith("'class_2' is in one only")
  message = reading.find_error(tiny_data.config(tmp_path, num_classes=4))
  assert message.endswith('3 class folders, data.num_classes says 4')


def test_pictures_that_are_not_read_are_counted(tmp_path, caplog):
  tiny_data.write_class_folders(tmp_path, {'stylized': 6})
  for name in ('a.webp', 'b.WEBP', 'c.tiff', 'notes.txt'):
    (tmp_path / 'stylized' / 'class_1' / name).touch()
  with caplog.at_level('WARNING', 'absl'):
    source = sources.find(tiny_data.config(tmp_path).data, 'stylized')
  assert source.size == 6
  assert caplog.messages == [
    f'{tmp_path}/stylized: 1 .tiff, 2 .webp files are left out;'
    ' tools/build_tfrecords.py converts them'
  ]
  (tmp_path / 'stylized' / 'class_3').mkdir()
  (tmp_path / 'stylized' / 'class_3' / 'a.heic').touch()
  config = tiny_data.config(tmp_path, num_classes=4)
  message = reading.find_error(config, 'stylized')
  assert message.endswith(
    'holds no image that is read (1 .heic, 1 .tiff, 2 .webp)'
  )


def test_class_folders_are_divided_by_names_and_seed(tmp_path):
  """Wherever the folder is."""
  for folder in ('one', 'two'):
    tiny_data.write_class_folders(tmp_path, {folder: 60})

  def parts(folder, seed=0, fraction=0.2):
    config = tiny_data.config(
      tmp_path / folder,
      num_train_images=None,
      num_eval_images=None,
      validation_fraction=fraction,
      validation_seed=seed,
    )
    found = [sources.find(config.data, s) for s in ('train', 'validation')]
    for source in found:
      for file, label in zip(source.files, source.labels):
        assert f'/class_{label}/' in file
    return [
      {os.path.relpath(file, tmp_path / folder) for file in source.files}
      for source in found
    ]

  train, held_out = parts('one')
  assert len(train) == 48 and len(held_out) == 12
  assert not train & held_out
  # A fifth of each class.
  assert [sum(f'class_{i}' in f for f in held_out) for i in range(3)] == [4] * 3
  assert parts('two') == [train, held_out]
  assert parts('one', seed=1)[1] != held_out
  assert parts('one', fraction=0.4)[1] > held_out
  (tmp_path / 'three').mkdir()
  os.rename(tmp_path / 'one', tmp_path / 'three' / 'train')
  inside = parts('three')[1]
  assert inside == {os.path.join('train', file) for file in held_out}


def test_a_folder_that_is_divided_has_no_split_of_its_own(tmp_path):
  tiny_data.write_class_folders(tmp_path, {'train': 20, 'validation': 7})
  config = tiny_data.config(tmp_path, validation_fraction=0.5)
  with pytest.raises(config_lib.ConfigError, match='validation_fraction'):
    sources.find(config.data, 'train')
  single = tmp_path / 'flat'
  tiny_data.write_class_folders(tmp_path, {'flat': 3})
  config = tiny_data.config(single, validation_fraction=0.5)
  assert 'one image cannot be divided' in reading.find_error(config)
  assert reading.find_error(tiny_data.config(single)).endswith(
    'a folder of class folders needs data.validation_fraction'
  )
