"""How a run executes: what XLA compiles, GPU memory, the same bits each time.

This is the one place that chooses by device. Nothing here changes what is
computed, except for rounding:

| device | `train.compile` by default | memory |
|---|---|---|
| one CPU | `layers`: faster by a third (docs/performance.md) | TensorFlow's |
| several replicas on CPUs | `none`: XLA cannot run there | TensorFlow's |
| GPUs | `none`: cuDNN's kernels; `step` is worth a try | grows as needed |
| TPU | `none`: XLA compiles everything in any case | TensorFlow's |

`train.deterministic` is off on GPUs by default, and on elsewhere.

Images and layer outputs are channels-last on all devices, which is what tensor
cores want. Networks in inference mode, and so attacks, fold their norms into
the convolutions on every device: that is fewer passes over memory anywhere.
oneDNN's convolutions, which `efficientnet_advprop/__init__.py` switches on,
concern CPUs only.
"""

from collections.abc import Iterator, Sequence
import contextlib
import os
import platform
from typing import Any, NamedTuple, Optional

import tensorflow as tf

from efficientnet_advprop import config as config_lib

_GROWTH = 'TF_FORCE_GPU_ALLOW_GROWTH'
_ALLOCATOR = 'TF_GPU_ALLOCATOR'


class Execution(NamedTuple):
  """What XLA compiles.

  Attributes:
    layers: the fused functions of `layers.kernels`, each one separately.
    step: each replica's whole training step.
  """

  layers: bool
  step: bool


def choose(
  strategy: tf.distribute.Strategy, setting: Optional[str] = None
) -> Execution:
  """Chooses what XLA compiles.

  Args:
    strategy: names the devices.
    setting: `train.compile`; None chooses by device.

  Raises:
    ConfigError: these devices cannot do what the setting asks for.
  """
  is_single = isinstance(strategy, tf.distribute.OneDeviceStrategy)
  if setting is None:
    setting = (
      'layers' if is_single and device_type(strategy) == 'CPU' else 'none'
    )
  if setting != 'none' and not is_single:
    # XLA cannot run in the replicas of a MirroredStrategy over CPUs, and
    # cannot hold the reductions of a step between GPUs.
    allowed = 'none on several replicas or a TPU'
    raise config_lib.ConfigError('train.compile', setting, allowed)
  return Execution(setting == 'layers', setting == 'step')


def for_evaluation(
  strategy: tf.distribute.Strategy, setting: Optional[str]
) -> Execution:
  """Chooses for a network that does not train: `none` holds here, too."""
  return choose(strategy, 'none' if setting == 'none' else None)


@contextlib.contextmanager
def graphs_as_traced() -> Iterator[None]:
  """Leaves out TensorFlow's graph optimizer.

  On CPUs it takes a quarter of the time up to the first training step, and
  makes no step faster that was measured (docs/results/performance.md). This
  context is for training steps: evaluation is 5 to 9% faster with the
  optimizer. A function must be called within the context each time, or never,
  because TensorFlow prepares it again for other options.

  Yields:
    Nothing.
  """
  name = 'disable_meta_optimizer'
  before = tf.config.optimizer.get_experimental_options().get(name, False)
  set_options = tf.config.optimizer.set_experimental_options
  set_options({name: True})
  try:
    yield
  finally:
    set_options({name: before})


def device_type(strategy: tf.distribute.Strategy) -> str:
  """Returns `CPU`, `GPU` or `TPU`, the type of the strategy's devices."""
  device = tf.DeviceSpec.from_string(strategy.extended.worker_devices[0])
  return str(device.device_type)


def prepare_gpus(gpus: Optional[Sequence[Any]] = None) -> None:
  """Sets how TensorFlow allocates the memory of GPUs, before it uses one.

  Memory grows as needed, so that other processes, NCCL and cuDNN find some.
  A single GPU allocates by CUDA's own pool, which fragments less where attack
  and training step take turns. The environment variables
  TF_FORCE_GPU_ALLOW_GROWTH and TF_GPU_ALLOCATOR override both.

  Args:
    gpus: physical devices. Default: all that TensorFlow sees.
  """
  if gpus is None:
    gpus = tf.config.list_physical_devices('GPU')
  if len(gpus) == 1:
    os.environ.setdefault(_ALLOCATOR, 'cuda_malloc_async')
  if _GROWTH not in os.environ:
    for gpu in gpus:
      tf.config.experimental.set_memory_growth(gpu, True)


def set_determinism(wanted: Optional[bool]) -> bool:
  """Lets TensorFlow compute the same bits each time, or as fast as it can.

  It counts for the whole process, and cannot be taken back.

  Args:
    wanted: `train.deterministic`; None is yes unless there are GPUs. There the
      kernels whose sums have a fixed order are slower, and operations that have
      no such kernel fail.

  Returns:
    What was chosen.
  """
  if wanted is None:
    wanted = not tf.config.list_physical_devices('GPU')
  if wanted:
    tf.config.experimental.enable_op_determinism()
  return wanted


def describe(strategy: tf.distribute.Strategy, execution: Execution) -> str:
  """Returns a line with the devices and how the run executes on them."""
  count, kind = strategy.num_replicas_in_sync, device_type(strategy)
  name = device_name(kind)
  devices = f'{count} x {name}' if count > 1 else name
  parts = ['no compilation by XLA']
  if kind == 'TPU':
    parts = ['all compiled by XLA']
  elif execution.step:
    parts = ['the whole step compiled by XLA']
  elif execution.layers:
    parts = ['fused layers compiled by XLA']
  if kind == 'GPU':
    grows = os.environ.get(_GROWTH, 'true').lower() == 'true'
    parts.append(f'memory {"grows as needed" if grows else "taken at once"}')
    parts.append(f'allocator {os.environ.get(_ALLOCATOR, "BFC")}')
  return f'{devices}: {", ".join(parts)}'


def device_name(kind: str) -> str:
  """Returns the model of the first device of a type.

  Args:
    kind: `CPU`, `GPU` or `TPU`.
  """
  if kind == 'GPU':
    gpus = tf.config.list_physical_devices('GPU')
    details = tf.config.experimental.get_device_details(gpus[0])
    return str(details.get('device_name', 'GPU'))
  if kind == 'CPU':
    return f'CPU {_cpu_model()}, {os.cpu_count()} cores'
  return kind


def _cpu_model() -> str:
  try:
    with open('/proc/cpuinfo', encoding='utf-8') as file:
      for line in file:
        name, _, value = line.partition(':')
        if name.strip() == 'model name':
          return value.strip()
  except OSError:
    pass  # Not Linux.
  return platform.processor() or platform.machine()
