import os
import subprocess
import sys
import time

import tensorflow as tf

from efficientnet_advprop.training import input_watch


def _slow(seconds):
  """Batches of which the third comes late."""

  def wait(index):
    if index == 2:
      time.sleep(seconds)
    return index

  numbers = tf.data.Dataset.range(4)
  return numbers.map(lambda n: tf.py_function(wait, [n], tf.int64))


def _run(watch, dataset):
  @tf.function
  def run(iterator):
    done = tf.constant(0, tf.int64)
    for index in tf.range(4, dtype=tf.int64):
      batch = watch.next(iterator, done)
      tf.debugging.assert_equal(batch, index)
      done += tf.ensure_shape(batch, [])

  run(iter(dataset))


def test_a_stalled_input_is_reported_while_steps_wait(caplog):
  watch = input_watch.InputWatch()
  with caplog.at_level('WARNING', 'absl'), watch.reporting(seconds=0.5):
    _run(watch, _slow(2.0))
  assert 'The input stalls: no batch for' in caplog.text
  assert '(2 came before)' in caplog.text
  assert 1.5 < watch.take_waited() < 4
  assert watch.take_waited() == 0


def test_a_steady_input_is_worth_no_word(caplog):
  watch = input_watch.InputWatch()
  with caplog.at_level('WARNING', 'absl'), watch.reporting(seconds=0.5):
    _run(watch, tf.data.Dataset.range(4))
    time.sleep(1)  # No step needs a batch: an evaluation, for example.
  assert not caplog.text and watch.take_waited() < 0.5


def test_the_counts_are_the_host_s_and_need_no_finite_loss():
  watch = input_watch.InputWatch()
  for count in (watch._needed, watch._arrived):
    assert tf.DeviceSpec.from_string(count.device).device_type == 'CPU'

  @tf.function
  def run(iterator, done):
    return watch.next(iterator, done)

  iterator = iter(tf.data.Dataset.range(3))
  for value in (1.0, float('nan'), float('inf')):
    run(iterator, tf.constant([0.0, value]))
  assert watch._needed.numpy() == watch._arrived.numpy() == 3


_ONE_THREAD = """
from efficientnet_advprop.training import input_watch
import tensorflow as tf
import time

watch = input_watch.InputWatch()
total = tf.Variable(tf.zeros([1000, 1000]))

@tf.function
def run(iterator, steps):
  done = tf.constant(0.0)
  for _ in tf.range(steps):
    image = tf.fill([1000, 1000], watch.next(iterator, done))
    for _ in range(10):
      image = tf.linalg.matmul(image, image)
    total.assign_add(image)
    done = total[0, 0]

batches = tf.data.Dataset.range(100).map(lambda n: tf.zeros([])).prefetch(9)
iterator = iter(batches)
run(iterator, 1)
began = time.monotonic()
with watch.reporting():
  run(iterator, 10)
print(watch.take_waited() / (time.monotonic() - began))
"""


def test_one_thread_does_not_take_its_own_work_for_a_wait(tmp_path):
  script = tmp_path / 'script.py'  # AutoGraph needs a file.
  script.write_text(_ONE_THREAD)
  threads = {'TF_NUM_INTEROP_THREADS': '1', 'TF_NUM_INTRAOP_THREADS': '1'}
  share = subprocess.run(
    [sys.executable, str(script)],
    env={**os.environ, **threads, 'PYTHONPATH': os.getcwd()},
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  assert float(share) < 0.3
