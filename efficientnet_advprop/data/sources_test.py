import pytest

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.data import shards
from efficientnet_advprop.data import sources
from efficientnet_advprop.testing import reading
from efficientnet_advprop.testing import tiny_data


def test_nothing_to_find_is_an_error(tmp_path):
  missing = tmp_path / 'missing'
  assert reading.find_error(tiny_data.config(missing)).startswith(
    f'{missing}: no such folder'
  )
  message = reading.find_error(tiny_data.config(tmp_path), 'test')
  assert message.startswith(f"{tmp_path}: no images of the split 'test'")


def test_a_wrong_number_of_images_is_an_error(tmp_path):
  tiny_data.write_split(tmp_path, 'train', [5, 5, 3, 5])
  tiny_data.write_split(tmp_path, 'validation', [8])
  config = tiny_data.config(tmp_path)
  assert reading.find_error(config) == (
    f"{tmp_path}: the split 'train' holds 18 images, data.num_train_images"
    ' says 20; train-00002-of-00004 holds 3, others 5 (cut short?)'
  )
  assert reading.find_error(config, 'validation') == (
    f"{tmp_path}: the split 'validation' holds 8 images, data.num_eval_images"
    ' says 7'
  )


def test_a_named_test_set_may_have_any_size_but_none(tmp_path):
  tiny_data.write_split(tmp_path, 'stylized', [3])
  tiny_data.write_split(tmp_path, 'empty', [0])
  config = tiny_data.config(tmp_path)
  assert sources.find(config.data, 'stylized').size == 3
  assert reading.find_error(config, 'empty').endswith("'empty' holds no images")


def test_missing_images_can_be_allowed(tmp_path):
  tiny_data.write_split(tmp_path, 'train', [10, 8])
  config = tiny_data.config(tmp_path, max_bad_records=2)
  assert sources.find(config.data, 'train').size == 18
  config = tiny_data.config(tmp_path, max_bad_records=1)
  assert '18 images' in reading.find_error(config)


_NOBODY_SAYS = dict(
  num_classes=None, num_train_images=None, num_eval_images=None
)


def _numbers(config):
  data = sources.resolved(config).data
  return data.num_classes, data.num_train_images, data.num_eval_images


def test_numbers_are_those_of_class_folders(tmp_path):
  tiny_data.write_class_folders(tmp_path, {'train': 20, 'validation': 7})
  config = tiny_data.config(tmp_path, **_NOBODY_SAYS)
  assert _numbers(config) == (3, 20, 7)
  # The file of a run says them.
  text = config_lib.to_yaml(sources.resolved(config))
  assert 'num_train_images: 20' in text
  given = tiny_data.config(tmp_path, **{**_NOBODY_SAYS, 'num_classes': 4})
  with pytest.raises(errors.DataError, match=r'num_classes says 4'):
    sources.resolved(given)


def test_numbers_are_those_of_records(tmp_path):
  tiny_data.write_split(tmp_path, 'train', [7, 13], num_classes=5)
  tiny_data.write_split(tmp_path, 'validation', [6])
  config = tiny_data.config(tmp_path, **_NOBODY_SAYS)
  assert _numbers(config) == (5, 20, 6)  # The highest label is 5.
  held_out = tiny_data.config(tmp_path, **_NOBODY_SAYS, minival_shards=1)
  assert _numbers(held_out) == (5, 13, 6)
  (tmp_path / 'labels.txt').write_text('a\nb\nc\nd\ne\nf\n')
  assert _numbers(config) == (6, 20, 6)


def test_a_number_that_nobody_can_tell_must_be_given(tmp_path, monkeypatch):
  monkeypatch.setattr(shards, '_COUNTED_BYTES', 0)
  tiny_data.write_split(tmp_path, 'train', [20])
  tiny_data.write_split(tmp_path, 'validation', [7])
  config = tiny_data.config(tmp_path, num_train_images=None)
  with pytest.raises(config_lib.ConfigError, match='train_images: got None'):
    sources.resolved(config)
  config = tiny_data.config(tmp_path, num_classes=None)
  with pytest.raises(config_lib.ConfigError, match='num_classes: got None'):
    sources.resolved(config)


def test_a_split_that_is_not_there_has_no_number(tmp_path):
  tiny_data.write_class_folders(tmp_path, {'validation': 7})
  config = tiny_data.config(tmp_path, **_NOBODY_SAYS)
  assert _numbers(config) == (3, None, 7)
  with pytest.raises(config_lib.ConfigError, match='num_train_images'):
    _ = sources.resolved(config).train_steps
  empty = tmp_path / 'empty'
  empty.mkdir()
  with pytest.raises(errors.DataError, match="no images of the split 'train'"):
    sources.resolved(tiny_data.config(empty, **_NOBODY_SAYS))


def test_given_numbers_are_not_looked_up(tmp_path):
  config = tiny_data.config(tmp_path / 'nowhere')
  assert sources.resolved(config) == config
