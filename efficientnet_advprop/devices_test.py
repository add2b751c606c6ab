import json
import os
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


def _slurm(monkeypatch, **variables):
  """Sets the variables of a job step; restores TF_CONFIG after the test."""
  monkeypatch.setenv('TF_CONFIG', '')
  for name, value in variables.items():
    monkeypatch.setenv(name, value)


def test_workers_come_from_slurm_too(monkeypatch):
  """By their nodes: sorted by name, n10 comes before n9."""
  _slurm(
    monkeypatch,
    SLURM_JOB_ID='12345',
    SLURM_STEP_NODELIST='n[9-10]',
    SLURM_STEP_NUM_TASKS='4',
    SLURM_STEP_TASKS_PER_NODE='2(x2)',
    SLURM_PROCID='1',
    SLURM_LOCALID='1',
    SLURMD_NODENAME='n9',
  )
  devices._read_slurm()
  found = json.loads(os.environ['TF_CONFIG'])
  ports = 22345, 22346
  workers = [f'{node}:{port}' for node in ('n10', 'n9') for port in ports]
  assert found['cluster'] == {'worker': workers}
  assert found['task'] == {'type': 'worker', 'index': 3}


def test_slurm_leaves_a_tf_config_and_single_tasks_alone(monkeypatch):
  _slurm(monkeypatch, SLURM_STEP_NUM_TASKS='1')
  devices._read_slurm()
  assert not os.environ['TF_CONFIG']
  _slurm(monkeypatch, SLURM_STEP_NUM_TASKS='2', TF_CONFIG='{}')
  devices._read_slurm()
  assert os.environ['TF_CONFIG'] == '{}'


def test_a_missing_variable_of_slurm_is_named(monkeypatch):
  _slurm(monkeypatch, SLURM_STEP_NUM_TASKS='2')
  monkeypatch.delenv('SLURM_PROCID', raising=False)
  with pytest.raises(config_lib.ConfigError, match='SLURM_PROCID') as caught:
    devices.create_strategy('multi_worker')
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('gpus, name', [(0, 'AUTO'), (8, 'NCCL')])
def test_workers_with_gpus_reduce_by_nccl(monkeypatch, gpus, name):
  monkeypatch.setattr(
    tf.config, 'list_physical_devices', lambda kind: [kind] * gpus
  )
  assert devices._communication().implementation.name == name


def test_gradients_are_summed_in_parts(monkeypatch, two_replicas):
  """Parts end where they exceed the size; the last layers come first."""
  monkeypatch.setattr(devices, '_PART_BYTES', 100)

  @tf.function
  def step():
    def own():
      rank = tf.distribute.get_replica_context().replica_id_in_sync_group
      values = [tf.range(n) + rank + 1 for n in (3, 20, 10, 20)]
      values = [tf.cast(value, tf.float32) for value in values]
      return devices.summed([*values[:2], None, *values[2:]])

    first, second, none, *others = two_replicas.run(own)
    assert none is None
    return first, second, *others

  results = [two_replicas.experimental_local_results(r) for r in step()]
  for count, sums in zip((3, 20, 10, 20), results):
    for replica in sums:
      np.testing.assert_array_equal(replica, 2 * np.arange(count) + 3)
  graph = step.get_concrete_function().graph
  reductions = [
    op.inputs[0].shape[0]
    for op in graph.get_operations()
    if op.type.startswith('CollectiveReduce')
  ]
  # 20 and 10 numbers exceed 100 bytes together, 20 and 3 are left.
  assert sorted(reductions) == [23, 23, 30, 30]


def test_one_replica_sums_nothing():
  gradients = [tf.ones(3), None]
  assert devices.summed(gradients) == gradients


def test_each_batch_is_fetched_to_its_replica(two_replicas):
  """No replica gets its batch by way of another one."""
  dataset = two_replicas.distribute_datasets_from_function(
    lambda context: tf.data.Dataset.range(8).batch(2)
  )
  for batch in dataset:
    parts = two_replicas.experimental_local_results(batch)
    names = [tf.DeviceSpec.from_string(part.device) for part in parts]
    assert [(n.device_type, n.device_index) for n in names] == [
      ('CPU', 0),
      ('CPU', 1),
    ]


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
