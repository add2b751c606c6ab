"""Which devices a run uses: tf.distribute strategies by name."""

from typing import Optional

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib

STRATEGIES = ('auto', 'one_device', 'mirrored', 'multi_worker', 'tpu')


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
      logical CPUs where there is no GPU. `multi_worker` reads TF_CONFIG.
    tpu: `local` on a TPU VM, else the TPU's name or grpc address.
    zone: of the TPU, where its name alone does not tell.
    project: of the TPU, likewise.

  Raises:
    ConfigError: the name is unknown or there is no such hardware.
  """
  config_lib.check_choice('strategy', name, STRATEGIES)
  gpus = tf.config.list_logical_devices('GPU')
  if name == 'auto':
    name = 'tpu' if tpu else 'mirrored' if len(gpus) > 1 else 'one_device'
  if name == 'tpu':
    return _tpu_strategy(tpu, zone, project)
  if name == 'multi_worker':
    return tf.distribute.MultiWorkerMirroredStrategy()
  devices = gpus or tf.config.list_logical_devices('CPU')
  if name == 'mirrored':
    return tf.distribute.MirroredStrategy([device.name for device in devices])
  return tf.distribute.OneDeviceStrategy(devices[0].name)


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
  """Blocks until a TPU of the old kind, apart from its host, is healthy."""
  # Imported here: it defines flags, and only this road needs it.
  import cloud_tpu_client

  client = cloud_tpu_client.Client(tpu, zone=zone, project=project)
  logging.info('Waiting for TPU %s (%s)', tpu, client.state())
  client.wait_for_healthy()


def compiles_layers(strategy: tf.distribute.Strategy) -> bool:
  """Whether layers may use functions compiled by XLA inside this strategy.

  They cannot in a MirroredStrategy over CPUs; on a TPU everything is compiled
  anyway.
  """
  return isinstance(strategy, tf.distribute.OneDeviceStrategy)
