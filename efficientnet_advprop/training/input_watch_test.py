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
