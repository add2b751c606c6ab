import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.methods import paper
from efficientnet_advprop.testing import tiny_runs
from efficientnet_advprop.testing import whole_runs
from efficientnet_advprop.training import optimizers
from efficientnet_advprop.training import step as step_lib


def _config(model=None, **train):
  return tiny_runs.config(
    6, model={**tiny_runs.RESNET, **(model or {})}, compile='none', **train
  )


def _trainer(config):
  """Network, average and optimizer of a run, of which nothing is written."""
  return whole_runs.start('/nonexistent', config)


def _random_batch():
  return {
    'image': tf.random.stateless_uniform([16, 16, 16, 3], [0, 1], -1, 1),
    'label': tf.range(16) % 10,
    'seed': tf.stack([tf.range(16), tf.range(16)], 1),
  }


@pytest.mark.parametrize('weight', [1, 2])
def test_a_step_descends_the_sum_of_both_losses(monkeypatch, weight):
  """The update is that of the sum, computed independently of train_step."""
  plain = {'dropout_rate': 0, 'survival_probability': 1}
  config = _config(plain, loss_weight=weight)
  trainer = _trainer(config)
  batch = _random_batch()
  model = trainer.model
  before = [variable.numpy() for variable in model.variables]
  clean, adversarial = paper.advprop(model, batch, config, tf.constant(0))
  with tf.GradientTape() as tape:
    losses = [
      tf.reduce_mean(
        tf.keras.losses.categorical_crossentropy(
          tf.one_hot(part.labels, 10),
          model(part.images, training=True, domain=part.domain),
          from_logits=True,
          label_smoothing=0.1,
        )
      )
      for part in (clean, adversarial)
    ]
    decayed = optimizers.decayed_variables(config, model)
    penalty = 1e-5 / 2 * sum(tf.reduce_sum(v**2) for v in decayed)
    total = weight * (losses[0] + losses[1]) + penalty
  expected = tape.gradient(total, model.trainable_variables)
  for variable, value in zip(model.variables, before):
    variable.assign(value)  # The passes have moved the statistics.
  seen = {}
  monkeypatch.setattr(
    trainer.optimizer,
    'apply_gradients',
    lambda pairs, **_: seen.update(gradients=[g for g, _ in pairs]),
  )
  values = step_lib.train_step(
    model, trainer.average, trainer.optimizer, batch, config
  )
  np.testing.assert_allclose(values, [total, *losses], rtol=1e-5)
  for ours, theirs in zip(seen['gradients'], expected):
    scale = max(1e-3, np.abs(theirs).max())
    assert np.abs(ours - theirs).max() < 1e-3 * scale


def test_a_mixture_s_loss_is_the_sum_over_both_halves():
  """Twice the mean over a batch that holds every image twice."""
  config = _config(method='mixture', weight_decay=0)
  trainer = _trainer(config)
  batch = _random_batch()
  model = trainer.model
  (both,) = paper.mixture(model, batch, config, tf.constant(0))
  logits = model(both.images, training=True)
  expected = 2 * tf.keras.losses.CategoricalCrossentropy(
    from_logits=True, label_smoothing=0.1
  )(tf.one_hot(both.labels, 10), logits)
  losses = step_lib.train_step(
    model, trainer.average, trainer.optimizer, batch, config
  )
  # Moved statistics have changed the attack a little.
  np.testing.assert_allclose(losses, [expected] * 2, rtol=1e-2)


def test_accumulation_descends_the_mean_of_its_parts(monkeypatch):
  """Each half's own gradient, added; the statistics move with each."""
  batch = _random_batch()
  halves = [{k: v[i : i + 8] for k, v in batch.items()} for i in (0, 8)]
  seen = []
  for steps, pieces in ((2, [batch]), (1, halves)):
    config = _config(accumulation_steps=steps)
    trainer = _trainer(config)
    gradients = []
    monkeypatch.setattr(
      trainer.optimizer,
      'apply_gradients',
      lambda pairs, gradients=gradients, **_: gradients.append(
        [tf.convert_to_tensor(g) for g, _ in pairs]
      ),
    )
    losses = [
      step_lib.train_step(
        trainer.model, trainer.average, trainer.optimizer, piece, config
      )
      for piece in pieces
    ]
    means = [tf.add_n(parts) / len(pieces) for parts in zip(*gradients)]
    loss = tf.add_n(losses) / len(pieces)
    seen.append([loss, *means, *trainer.model.non_trainable_variables])
  for ours, theirs in zip(*seen):
    scale = max(1e-2, np.abs(theirs).max())
    assert np.abs(ours - theirs).max() < 1e-4 * scale
