"""Progress lines of long tasks, and durations as people read them."""

import time

from absl import logging


class Progress:
  """Logs how far a long task is, every ten seconds or so.

  A call with the number of images that are done and their total logs a line
  with the rate and the time left.
  """

  def __init__(self, what: str):
    self._what = what
    self._start = self._shown = time.monotonic()

  def __call__(self, done: int, total: int) -> None:
    now = time.monotonic()
    if now - self._shown < 10 or done >= total:
      return
    self._shown = now
    rate = done / (now - self._start)
    left = format_seconds((total - done) / rate)
    logging.info(
      '%s: %d/%d  %.0f images/s  %s left', self._what, done, total, rate, left
    )


def format_seconds(seconds: float) -> str:
  """Formats a duration as 1:02:03 or 2:03."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}:{minutes:02}:{seconds:02}'
  return f'{minutes}:{seconds:02}'
