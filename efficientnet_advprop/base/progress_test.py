import logging as python_logging
import time

from efficientnet_advprop.base import progress


def test_durations():
  assert progress.format_seconds(5) == '0:05'
  assert progress.format_seconds(754.6) == '12:35'
  assert progress.format_seconds(3600 * 27 + 61) == '27:01:01'


def test_a_line_comes_after_ten_seconds(monkeypatch, caplog):
  now = [0.0]
  monkeypatch.setattr(time, 'monotonic', lambda: now[0])
  report = progress.Progress('main')
  with caplog.at_level(python_logging.INFO, 'absl'):
    for now[0], done in ((9, 90), (20, 200), (21, 210), (40, 400)):
      report(done, 400)
  lines = [record.getMessage() for record in caplog.records]
  assert lines == ['main: 200/400  10 images/s  0:20 left']
