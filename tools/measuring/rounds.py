"""Times variants of a step by turns, and reads the memory of this process."""

from collections.abc import Callable
import time

import numpy as np
import tensorflow as tf

Step = Callable[[], object]
Seconds = dict[str, np.ndarray]  # [rounds] by variant.


def take_turns(steps: dict[str, Step], rounds: int) -> tuple[Seconds, Seconds]:
  """Runs all variants by turns, after two rounds to warm up.

  Args:
    steps: the variants, by name.
    rounds: how often each one is timed.

  Returns:
    The CPU seconds and the wall seconds of every variant.
  """
  cpu: dict[str, list[float]] = {name: [] for name in steps}
  wall: dict[str, list[float]] = {name: [] for name in steps}
  for _ in range(rounds + 2):
    for name, step in steps.items():
      cpu_began, wall_began = time.process_time(), time.monotonic()
      _wait(step())
      cpu[name].append(time.process_time() - cpu_began)
      wall[name].append(time.monotonic() - wall_began)
  return tuple(  # type: ignore[return-value]  # mypy does not count them.
    {name: np.array(values[2:]) for name, values in times.items()}
    for times in (cpu, wall)
  )


def _wait(result: object) -> None:
  """Waits for a result, which a GPU computes after its step has returned."""
  for tensor in tf.nest.flatten(result):
    if tf.is_tensor(tensor):
      tensor.numpy()


def ratios(seconds: Seconds) -> Seconds:
  """Returns ratios to the variant `plain` of the same round."""
  return {name: times / seconds['plain'] for name, times in seconds.items()}


def table(cpu: Seconds, wall: Seconds, by_wall: bool = False) -> str:
  """Formats a line for each variant: milliseconds and ratios with quartiles.

  Args:
    cpu: CPU seconds.
    wall: wall seconds.
    by_wall: whether the first columns are of wall time, where another device
      than the CPU does the work; the last one is of the other kind.
  """
  first, last = ('wall', 'CPU') if by_wall else ('CPU', 'wall')
  main, other = (wall, cpu) if by_wall else (cpu, wall)
  lines = [f'{"":16}{first + " ms":>9}{"ratio":>8}{"quartiles":>14}{last:>8}']
  other_ratios = ratios(other)
  for name, values in ratios(main).items():
    low, high = np.percentile(values, [25, 75])
    lines.append(
      f'{name:16}{np.median(main[name]) * 1000:9.0f}{np.median(values):8.2f}'
      f'{f"{low:.2f}-{high:.2f}":>14}{np.median(other_ratios[name]):8.2f}'
    )
  return '\n'.join(lines)


def held_memory(key: str) -> int:
  """Reads how much memory this process holds.

  Args:
    key: `VmRSS` for what it holds now, `VmHWM` for the peak since it started.

  Returns:
    Resident memory in kB.
  """
  # getrusage would count what the parent held when it started this process.
  with open('/proc/self/status', encoding='ascii') as status:
    lines = dict(line.split(':', 1) for line in status)
  return int(lines[key].split()[0])
