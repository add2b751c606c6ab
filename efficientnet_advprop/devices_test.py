import json
import socket

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import devices


@pytest.mark.parametrize(
  'name, replicas', [('auto', 1), ('one_device', 1), ('mirrored', 2)]
)
def test_the_strategy_has_the_machine_s_replicas(name, replicas):
  strategy = devices.create_strategy(name)
  assert strategy.num_replicas_in_sync == replicas


def test_strategies_of_one_process_do_not_meet():
  """Their reductions are separate, though of other shapes; see devices."""
  for shape in ([3], [5]):
    strategy = devices.create_strategy('mirrored')

    @tf.function
    def step(shape=shape):
      context = tf.distribute.get_replica_context()
      return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.ones(shape))

    sums = strategy.experimental_local_results(strategy.run(step))
    np.testing.assert_array_equal(sums, np.full([2, *shape], 2))


@pytest.mark.parametrize('tpu', ['local', '', None])
def test_a_missing_tpu_is_said_in_one_line(tpu):
  with pytest.raises(config_lib.ConfigError, match=r'^tpu: got ') as caught:
    devices.create_strategy('tpu', tpu)
  assert '\n' not in str(caught.value)


def test_an_unknown_strategy_is_told_the_known_ones():
  with pytest.raises(config_lib.ConfigError, match='did you mean mirrored'):
    devices.create_strategy('miror')


def test_several_workers_come_from_the_environment(monkeypatch):
  monkeypatch.delenv('TF_CONFIG', raising=False)
  strategy = devices.create_strategy('multi_worker')
  assert isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


@pytest.fixture(name='addresses')
def _addresses():
  """Two addresses of this machine at which nobody listens."""
  with socket.socket() as one, socket.socket() as two:
    for each in (one, two):
      each.bind(('localhost', 0))
    return [f'localhost:{each.getsockname()[1]}' for each in (one, two)]


def _tf_config(addresses):
  task = {'type': 'worker', 'index': 0}
  return json.dumps({'cluster': {'worker': addresses}, 'task': task})


def test_a_worker_that_never_appears_is_named(monkeypatch, addresses):
  monkeypatch.setattr(devices, 'WORKER_TIMEOUT_SECONDS', 1)
  monkeypatch.setenv('TF_CONFIG', _tf_config(addresses))
  with pytest.raises(config_lib.ConfigError, match=addresses[1]) as caught:
    devices.create_strategy('multi_worker')
  assert '\n' not in str(caught.value)


def test_a_port_that_is_taken_is_named(monkeypatch, addresses):
  monkeypatch.setenv('TF_CONFIG', _tf_config(addresses))
  with socket.socket() as other:
    other.bind(('', int(addresses[0].rsplit(':')[-1])))
    other.listen()
    with pytest.raises(config_lib.ConfigError, match=addresses[0]):
      devices.create_strategy('multi_worker')


@pytest.mark.parametrize(
  'message, name',
  [
    (
      'Collective ops is aborted by: Error reported from /job:worker/task:1:'
      ' Task /job:worker/replica:0/task:1 heartbeat timeout.',
      'worker 1 (there:2)',
    ),
    (
      'Connection reset by peer\nAdditional GRPC error information from remote'
      ' target /job:worker/replica:0/task:0 while calling a method',
      'worker 0 (here:1)',
    ),
    ('Connection reset by peer', 'another worker'),
  ],
)
def test_a_lost_worker_is_named(message, name):
  """As TensorFlow words it if a follower, the leader or who knows has ended."""
  line = devices._lost(message, {'worker': ['here:1', 'there:2']})
  assert line.startswith(f'{name} has ended') and '\n' not in line


def test_other_errors_of_one_process_are_left_alone(two_replicas):
  error = tf.errors.UnavailableError(None, None, 'x')
  watched = devices.lost_workers_named(two_replicas)
  with pytest.raises(tf.errors.UnavailableError) as caught, watched:
    raise error
  assert caught.value is error


@pytest.mark.parametrize('value', ['{', '{"cluster": {"worker": ["a", "b"]}}'])
def test_a_wrong_tf_config_is_refused(monkeypatch, value):
  monkeypatch.setenv('TF_CONFIG', value)
  with pytest.raises(config_lib.ConfigError, match=r'^TF_CONFIG: got'):
    devices.create_strategy('multi_worker')


def test_local_paths_are_refused_where_the_tpu_cannot_reach_them():
  paths = {'data_dir': 'gs://bucket/data', 'model_dir': 'runs/b7'}
  for tpu in (None, 'local'):
    devices.check_reachable(tpu, paths)
  with pytest.raises(config_lib.ConfigError, match=r'^model_dir: .*gs://'):
    devices.check_reachable('tpu-1', paths)
