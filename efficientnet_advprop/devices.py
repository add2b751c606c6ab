"""Which devices a run uses: tf.distribute strategies by name."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import functools
import json
import os
import re
import socket
import time
from typing import Optional

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors

# How long workers wait for each other to appear.
WORKER_TIMEOUT_SECONDS = 600
STRATEGIES = ('auto', 'one_device', 'mirrored', 'multi_worker', 'tpu')
# Gradients are summed over replicas in parts of about this size, last layers
# first, so that a part travels while the next one is computed. TensorFlow's
# default is one part, which waits for the first layer. A part of this size is
# still large enough for the full bandwidth of a network.
_PART_BYTES = 32 << 20
# Workers of SLURM jobs listen on a port from here on that depends on the job.
_FIRST_PORT, _PORTS = 20_000, 10_000
# What a worker's collective operations raise once another one has ended.
_LOST = (
  tf.errors.AbortedError,
  tf.errors.CancelledError,
  tf.errors.DeadlineExceededError,
  tf.errors.UnavailableError,
)


def create_strategy(
  name: str = 'auto',
  tpu: Optional[str] = None,
  zone: Optional[str] = None,
  project: Optional[str] = None,
) -> tf.distribute.Strategy:
  """Creates a strategy, and connects to the TPU where one is asked for.

  Args:
    name: one of `STRATEGIES`. `auto` is the TPU if one is named, else all GPUs
      if there are several, else one device. `mirrored` spans all GPUs, or all
      logical CPUs where there is no GPU. `multi_worker` reads TF_CONFIG, or the
      variables of a SLURM job step.
    tpu: `local` on a TPU VM, else the TPU's name or grpc address.
    zone: of the TPU, where its name alone does not tell.
    project: of the TPU, likewise.

  Raises:
    ConfigError: the name is unknown, there is no such hardware, or a worker of
      TF_CONFIG does not appear.
  """
  config_lib.check_choice('strategy', name, STRATEGIES)
  if name == 'multi_worker':
    # Before anything looks at the devices, which fixes what they can reach.
    _read_slurm()
    _await_workers(os.environ.get('TF_CONFIG', ''))
    return tf.distribute.MultiWorkerMirroredStrategy(
      communication_options=_communication()
    )
  gpus = tf.config.list_logical_devices('GPU')
  if name == 'auto':
    name = 'tpu' if tpu else 'mirrored' if len(gpus) > 1 else 'one_device'
  if name == 'tpu':
    return _tpu_strategy(tpu, zone, project)
  devices = gpus or tf.config.list_logical_devices('CPU')
  if name == 'mirrored':
    return _mirrored_strategy(tuple(device.name for device in devices))
  return tf.distribute.OneDeviceStrategy(devices[0].name)


def _communication() -> tf.distribute.experimental.CommunicationOptions:
  """Returns how workers reduce.

  Without a choice TensorFlow sends the tensors of GPUs through the hosts; NCCL
  sends them from GPU to GPU.
  """
  kinds = tf.distribute.experimental.CommunicationImplementation
  has_gpus = bool(tf.config.list_physical_devices('GPU'))
  return tf.distribute.experimental.CommunicationOptions(
    implementation=kinds.NCCL if has_gpus else kinds.AUTO
  )


def summed(
  gradients: Sequence[Optional[tf.Tensor]],
) -> list[Optional[tf.Tensor]]:
  """Sums gradients over all replicas, while others are still computed.

  Runs in a replica's context.

  Args:
    gradients: this replica's share, in the order of the layers; None where a
      variable has none.

  Returns:
    The sums, in the same order.
  """
  context = tf.distribute.get_replica_context()
  if context.num_replicas_in_sync == 1:
    return list(gradients)
  options = tf.distribute.experimental.CommunicationOptions(
    bytes_per_pack=_PART_BYTES
  )
  sums = iter(
    context.all_reduce(
      tf.distribute.ReduceOp.SUM,
      [gradient for gradient in gradients if gradient is not None],
      options=options,
    )
  )
  return [None if g is None else next(sums) for g in gradients]


@functools.cache
def _mirrored_strategy(devices: tuple[str, ...]) -> tf.distribute.Strategy:
  """The only strategy over these devices in this process.

  Each strategy numbers its collective operations from the same start, and
  TensorFlow takes those of one number over the same devices for one operation:
  where the shapes of two differ, it aborts all collectives of the process.
  """
  return tf.distribute.MirroredStrategy(devices)


def _tpu_strategy(
  tpu: Optional[str], zone: Optional[str], project: Optional[str]
) -> tf.distribute.Strategy:
  try:
    if tpu and tpu != 'local' and '://' not in tpu:
      _wait_for_tpu(tpu, zone, project)
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
      tpu=tpu or '', zone=zone, project=project
    )
    if tpu != 'local':
      tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
  # The resolver and the client fail in many ways without a TPU: with errors of
  # TensorFlow, of the network, of the credentials.
  except Exception as error:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise config_lib.ConfigError(
      'tpu', tpu, f'local on a TPU VM, or the name of a TPU ({reason:.150})'
    ) from error
  return tf.distribute.TPUStrategy(resolver)


def _wait_for_tpu(
  tpu: str, zone: Optional[str], project: Optional[str]
) -> None:
  """Blocks until a TPU node (not a TPU VM) is healthy."""
  # Imported here: it defines flags, and only this road needs it.
  import cloud_tpu_client

  client = cloud_tpu_client.Client(tpu, zone=zone, project=project)
  logging.info('Waiting for TPU %s (%s)', tpu, client.state())
  client.wait_for_healthy()


def check_reachable(tpu: Optional[str], paths: Mapping[str, str]) -> None:
  """Refuses local paths for a TPU whose workers are other machines.

  Args:
    tpu: as for `create_strategy`.
    paths: by the names of their flags.

  Raises:
    ConfigError: names the flag.
  """
  if tpu in (None, '', 'local'):
    return
  for name, path in paths.items():
    if '://' not in path:
      allowed = f"a gs:// path, as TPU {tpu} cannot reach this machine's files"
      raise config_lib.ConfigError(name, path, allowed)


def _read_slurm() -> None:
  """Sets TF_CONFIG to the tasks of a SLURM job step, unless it is set.

  The tasks of a node listen on successive ports. SLURM itself gives each task
  its GPUs. The resolver sorts nodes by name and SLURM by number, so that a
  task finds its own place by node and not by rank.

  Raises:
    ConfigError: a variable of SLURM is missing or wrong.
  """
  tasks = os.environ.get('SLURM_STEP_NUM_TASKS', '1')
  if os.environ.get('TF_CONFIG') or tasks == '1':
    return
  try:
    port = _FIRST_PORT + int(os.environ.get('SLURM_JOB_ID', '0')) % _PORTS
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
      port_base=port,
      # It would ask nvidia-smi for numbers that nothing here uses.
      gpus_per_node=int(tasks),
      gpus_per_task=1,
      auto_set_gpu=False,
    )
    workers = resolver.cluster_spec().as_dict()['worker']
    own_port = port + int(os.environ['SLURM_LOCALID'])
    index = workers.index(f'{os.environ["SLURMD_NODENAME"]}:{own_port}')
  except (RuntimeError, ValueError, KeyError) as error:
    allowed = f'the variables of a job step, as srun sets them ({error})'
    raise config_lib.ConfigError(
      'SLURM_STEP_NUM_TASKS', tasks, allowed
    ) from None
  cluster = {
    'cluster': {'worker': workers},
    'task': {'type': 'worker', 'index': index},
  }
  os.environ['TF_CONFIG'] = json.dumps(cluster)


def _await_workers(tf_config: str) -> None:
  """Waits until every worker answers; TensorFlow would wait without a word.

  Each listens on its own address until all others answer, there or already
  through TensorFlow.
  """
  try:
    values = json.loads(tf_config or '{}')
    workers = values.get('cluster', {}).get('worker', [])
    chiefs = values.get('cluster', {}).get('chief', [])
    if len(workers) + len(chiefs) < 2:
      return
    task = values['task']
    own = values['cluster'][task['type']][int(task['index'])]
    places = {
      a: (a.rsplit(':', 1)[0], int(a.rsplit(':', 1)[1]))
      for a in (*chiefs, *workers)
    }
  except (ValueError, KeyError, IndexError, AttributeError, TypeError):
    allowed = 'JSON with the addresses of all workers and the own task'
    raise config_lib.ConfigError('TF_CONFIG', tf_config, allowed) from None
  with socket.socket() as listener:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      listener.bind(('', places[own][1]))
    except OSError as error:
      allowed = f"this worker's address with a free port ({error.strerror})"
      raise config_lib.ConfigError('TF_CONFIG', own, allowed) from None
    listener.listen(len(places) * 8)
    deadline = time.monotonic() + WORKER_TIMEOUT_SECONDS
    for address in places:
      if address != own:
        _await_worker(address, places[address], deadline)


def _await_worker(
  address: str, place: tuple[str, int], deadline: float
) -> None:
  while True:
    try:
      socket.create_connection(place, timeout=5).close()
      return
    except OSError:
      if time.monotonic() > deadline:
        allowed = f'a worker that answers in {WORKER_TIMEOUT_SECONDS} seconds'
        raise config_lib.ConfigError('TF_CONFIG', address, allowed) from None
    time.sleep(0.2)


@contextlib.contextmanager
def lost_workers_named(strategy: tf.distribute.Strategy) -> Iterator[None]:
  """Tells in one line when another worker ends while the context lasts.

  TensorFlow notices by itself, when a message fails or the other's sign of
  life is missing, after 20 seconds or so. A worker cannot continue without it.

  Raises:
    WorkerLostError: names the worker, if TensorFlow does.
  """
  try:
    yield
  except _LOST as error:
    if not has_workers(strategy):
      raise
    workers = strategy.cluster_resolver.cluster_spec().as_dict()
    raise errors.WorkerLostError(_lost(error.message, workers)) from error


def _lost(message: str, workers: Mapping[str, list[str]]) -> str:
  """The line for the user, from TensorFlow's many and a cluster's addresses."""
  found = re.search(
    r'(?:Error reported from|remote target) /job:(\w+)(?:/replica:\d+)?'
    r'/task:(\d+)',
    message,
  )
  name = 'another worker'
  if found:
    job, index = found.group(1), int(found.group(2))
    name = f'{job} {index} ({workers[job][index]})'
  return (
    f'{name} has ended, and training cannot continue without it; start all'
    ' workers again to resume from the last checkpoint'
  )


def has_workers(strategy: tf.distribute.Strategy) -> bool:
  """Whether this process is a worker among several."""
  return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
  """Whether this process is the one, among all workers, that writes files."""
  if not has_workers(strategy):
    return True
  resolver = strategy.cluster_resolver
  cluster = resolver.cluster_spec().as_dict()
  if not cluster:
    return True
  first = 'chief' if 'chief' in cluster else 'worker'
  return (resolver.task_type, resolver.task_id) == (first, 0)
