"""The step as one XLA program, which is what a TPU runs."""

import re

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.methods import paper
from efficientnet_advprop.models import factory
from efficientnet_advprop.testing import tiny_runs
from efficientnet_advprop.training import optimizers
from efficientnet_advprop.training import step as step_lib

_TINY = tiny_runs.EFFICIENTNET


def _config(model, **train):
  return config_lib.from_dict(
    {
      'model': {'name': 'efficientnet-b0', **model},
      'data': {
        'num_classes': 10,
        'num_train_images': 2500,
        'augmentation': 'none',
      },
      'train': {'batch_size': 4, 'warmup_epochs': 0, **train},
    }
  )


def _step(config, num_steps=1):
  """The step, its network, and a batch of 4."""
  settings = dict(name='pgd', epsilon=4, num_steps=num_steps)
  attack = config_lib.AttackConfig(**settings)
  config = config_lib.dataclasses.replace(config, attack=attack)
  tf.keras.utils.set_random_seed(0)
  tf.keras.mixed_precision.set_global_policy(config.train.precision)
  try:
    model, average = (
      factory.create_model(
        config.model,
        10,
        config.auxiliary_domains,
        rematerialized=config.train.rematerialize,
      )
      for _ in range(2)
    )
  finally:
    tf.keras.mixed_precision.set_global_policy('float32')
  optimizer = optimizers.create_optimizer(config, model)
  size = config.model.image_size
  batch = {
    'image': tf.random.stateless_uniform([4, size, size, 3], [0, 1], -1, 1),
    'label': tf.range(4),
    'seed': tf.stack([tf.range(4), tf.range(4)], 1),
  }

  def step(batch):
    return step_lib.train_step(model, average, optimizer, batch, config)

  return step, model, average, optimizer, batch, config


def _program(config, num_steps):
  step, *_, batch, _ = _step(config, num_steps)
  compiled = tf.function(step, jit_compile=True)
  return compiled.experimental_get_compiler_ir(batch)(stage='hlo')


def _convolutions(program):
  """The types of the results of all convolutions."""
  return re.findall(r'= (\w+)\[[\d,]*\]\S* convolution\(', program)


def _expected_convolutions(num_layers, num_steps):
  """Forward, gradient of the inputs, gradient of the kernels: one each.

  An attack's step needs the first two; each of two training passes all three
  (that of the images, which nothing uses, is dropped when XLA optimizes).
  """
  return (2 * num_steps + 2 * 3) * num_layers


def _num_layers(blocks):
  """Stem, head; expansion, depthwise, squeeze, excite, projection."""
  return 2 + 5 * blocks - 1  # The first block does not expand.


def _check(program, num_layers, num_steps, precision):
  kinds = _convolutions(program)
  assert len(kinds) == _expected_convolutions(num_layers, num_steps)
  expected = 'bf16' if precision == 'mixed_bfloat16' else 'f32'
  assert set(kinds) == {expected}
  assert '<=' not in program  # Of a dimension: dynamic.
  for instruction in ('custom-call', 'infeed', 'outfeed', 'send', 'recv'):
    assert f' {instruction}(' not in program


def test_a_small_step_is_one_static_program():
  """A stem and four blocks of four convolutions."""
  config = _config(
    dict(_TINY, name='resnet-50', stem_stride=1), precision='mixed_bfloat16'
  )
  _check(_program(config, 1), 17, 1, 'mixed_bfloat16')


@pytest.mark.slow
@pytest.mark.parametrize('num_steps', [1, 5])
@pytest.mark.parametrize('precision', ['float32', 'mixed_bfloat16'])
def test_b0_s_step_is_one_static_program(num_steps, precision):
  config = _config({}, precision=precision)
  _check(_program(config, num_steps), _num_layers(16), num_steps, precision)


def test_the_adversarial_image_stays_float32():
  *_, batch, config = _step(_config(_TINY, precision='mixed_bfloat16'))
  _, model, *_ = _step(config)
  passes = paper.METHODS['advprop'](model, batch, config, tf.constant(0))
  assert {part.images.dtype for part in passes} == {tf.float32}


def _run(config, jit_compile):
  step, model, average, optimizer, batch, _ = _step(config)
  losses = tf.function(step, jit_compile=jit_compile)(batch)
  variables = *model.variables, *average.variables, *optimizer.variables
  return [losses, *variables]


@pytest.mark.slow
def test_a_compiled_step_equals_the_plain_one():
  config = _config(dict(_TINY, batch_norm_momentum=0.9))
  for ours, theirs in zip(_run(config, True), _run(config, False)):
    scale = max(0.1, np.abs(theirs).max())
    np.testing.assert_allclose(ours / scale, theirs / scale, atol=2e-3)


@pytest.mark.slow
def test_rematerialization_changes_no_update():
  """Gradients, and statistics that move once, with what is drawn at random."""
  model = dict(_TINY, batch_norm_momentum=0.9)
  plain = _run(_config(model), False)
  again = _run(_config(model, rematerialize=True), False)
  for ours, theirs in zip(again, plain):
    scale = max(0.1, np.abs(theirs).max())
    np.testing.assert_allclose(ours / scale, theirs / scale, atol=2e-3)
