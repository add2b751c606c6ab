import os
import resource
import signal

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.base import errors
from efficientnet_advprop.base import paths as paths_lib
from efficientnet_advprop.weights import checkpoints


def test_the_newest_are_kept(saved):
  paths = checkpoints.checkpoint_paths(os.path.join(saved[0], 'checkpoints'))
  assert [os.path.basename(p) for p in paths] == ['ckpt-5', 'ckpt-4', 'ckpt-3']


@pytest.mark.parametrize('weights', ['ema', 'raw'])
def test_either_set_of_weights_is_read(saved, weights):
  model_dir, model, average = saved
  values, step = checkpoints.read(model_dir, weights)
  source = average if weights == 'ema' else model
  assert step == 5 and len(values) == len(source.variables)
  np.testing.assert_array_equal(values['stem/kernel'], source.stem.kernel)
  norm = source.blocks[1].expand.norm.norm_of('adversarial')
  place = 'blocks/1/expand/norm/auxiliary/adversarial/moving_variance'
  np.testing.assert_array_equal(values[place], norm.moving_variance)


def test_runs_are_told_from_other_checkpoints(saved, tmp_path):
  folder = os.path.join(saved[0], 'checkpoints')
  for place in (saved[0], folder, os.path.join(folder, 'ckpt-4')):
    assert checkpoints.is_run(place)
  other = str(tmp_path / 'ckpt-1')
  tf.train.Checkpoint(other=tf.Variable(1.0)).write(other)
  assert not checkpoints.is_run(other)
  assert not checkpoints.is_run(str(tmp_path))
  assert not checkpoints.is_run(str(tmp_path / 'nothing'))


def test_the_settings_of_a_run_are_found(tmp_path):
  (tmp_path / 'checkpoints').mkdir()
  (tmp_path / paths_lib.CONFIG).write_text('model: {name: resnet-18}')
  for place in ('', 'checkpoints', 'checkpoints/ckpt-1'):
    found = checkpoints.run_settings(str(tmp_path / place))
    assert found == {'name': 'resnet-18'}
  (tmp_path / paths_lib.CONFIG).write_text('model: [')
  assert checkpoints.run_settings(str(tmp_path)) == {}
  assert checkpoints.run_settings(str(tmp_path / 'a/b/c')) == {}


def _small_manager(directory, writes=True):
  values = tf.Variable(tf.ones([50_000]))
  checkpoint = tf.train.Checkpoint(values=values)
  return checkpoints.CheckpointManager(checkpoint, directory, 3, writes), values


def test_a_full_disk_is_said_and_leaves_the_last_one_intact(tmp_path):
  """A limit on the size of files fails a write as a full disk does."""
  manager, values = _small_manager(str(tmp_path))
  manager.save(1)
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
  try:
    with pytest.raises(errors.CheckpointError, match='step 2') as caught:
      manager.save(2)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)
  assert '\n' not in str(caught.value)
  values.assign(tf.zeros_like(values))
  assert manager.restore().endswith('ckpt-1')
  assert (values.numpy() == 1).all()


def test_a_long_path_does_not_hide_the_reason():
  error = OSError(f'/{"folder/" * 100}file; No space left on device')
  line = errors.first_line(error)
  assert line.startswith('/folder/') and len(line) <= 240
  assert line.endswith('file; No space left on device')
  assert errors.first_line(ValueError()) == 'ValueError'


def test_a_worker_that_does_not_write_leaves_no_file(tmp_path):
  chief, _ = _small_manager(str(tmp_path))
  chief.save(1)
  before = sorted(os.listdir(tmp_path))
  other, values = _small_manager(str(tmp_path), writes=False)
  values.assign(tf.zeros_like(values))
  other.save(2)
  assert sorted(os.listdir(tmp_path)) == before
  assert other.restore().endswith('ckpt-1')
  assert (values.numpy() == 1).all()


def _cut(path):
  data = path.read_bytes()
  path.write_bytes(data[: len(data) // 2])


def _flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


@pytest.mark.parametrize(
  'suffix, damage',
  [
    ('data-00000-of-00001', _cut),
    ('data-00000-of-00001', _flip),
    ('index', _cut),
  ],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
  tmp_path, suffix, damage
):
  manager, values = _small_manager(str(tmp_path))
  manager.save(1)
  values.assign_add(tf.ones_like(values))
  manager.save(2)
  damage(tmp_path / f'ckpt-2.{suffix}')
  (tmp_path / 'checkpoint').write_text('')  # TensorFlow's own list.
  manager, values = _small_manager(str(tmp_path))
  assert manager.restore().endswith('ckpt-1')
  assert (values.numpy() == 1).all()


def test_a_digest_names_the_weights_on_any_number_of_replicas():
  def build(strategy):
    with strategy.scope():
      model = tf.keras.Sequential([tf.keras.layers.Dense(2)])
      model.build([None, 3])
    model.set_weights([np.ones([3, 2]), np.zeros([2])])
    return model

  one = build(tf.distribute.OneDeviceStrategy('CPU:0'))
  two = build(tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1']))
  assert checkpoints.digest(one) == checkpoints.digest(two)
  two.layers[0].bias.assign([0, 1e-6])
  assert checkpoints.digest(one) != checkpoints.digest(two)
