"""Evaluation that counts every image exactly once."""

from collections.abc import Mapping
import json
import os
from typing import Any, Callable, Optional

import tensorflow as tf

from efficientnet_advprop import attacks
from efficientnet_advprop import config as config_lib
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.data import records

Result = dict[str, Any]

_SUMS = ('num_examples', 'loss', 'top_1_accuracy', 'top_5_accuracy')


class Evaluator:
  """Evaluates one network, as often as asked and on any test."""

  def __init__(
    self,
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    model: tf.keras.Model,
  ):
    """Creates the evaluator.

    Args:
      config: of the run; its `data` and `eval` count.
      strategy: under whose scope `model` was created.
      model: the network; its present weights count at each evaluation.
    """
    self._config = config
    self.strategy = strategy
    self._model = model
    self._steps: dict[Any, Callable[..., tf.Tensor]] = {}

  def evaluate(
    self,
    test: Optional[config_lib.TestConfig] = None,
    report: Optional[Callable[[int, int], None]] = None,
  ) -> Result:
    """Runs one test.

    Args:
      test: which images, through which norms, attacked or not; None is the
        plain test.
      report: called with the numbers of images done and in all.

    Returns:
      `num_examples`, `loss` (mean cross-entropy without label smoothing),
      `top_1_accuracy` and `top_5_accuracy` as fractions, and `domain`.

    Raises:
      DataError: the images are missing or damaged.
    """
    test = test or config_lib.TestConfig()
    config, strategy = self._config, self.strategy
    split = test.split or config.data.eval_split
    expected = pipeline.num_images(config, split)
    dataset = strategy.distribute_datasets_from_function(
      lambda context: pipeline.eval_dataset(config, split, context)
    )
    step = self._step_for(test)
    totals = tf.zeros([len(_SUMS)], tf.float64)
    try:
      for index, batch in enumerate(dataset):
        totals += tf.cast(step(batch, tf.constant(index)), tf.float64)
        if report is not None:
          report(int(totals[0]), expected)
    except tf.errors.OpError as error:
      raise records.explain(error) from error
    return _means(totals, test.domain)

  def _step_for(self, test: config_lib.TestConfig) -> Callable[..., tf.Tensor]:
    """The compiled step of a test, made once for each domain and attack."""
    key = (test.domain, test.attack)
    if key not in self._steps:
      self._steps[key] = self._make_step(test)
    return self._steps[key]

  def _make_step(self, test: config_lib.TestConfig) -> Callable[..., tf.Tensor]:
    model, strategy = self._model, self.strategy

    def replica_step(
      batch: Mapping[str, tf.Tensor], index: tf.Tensor
    ) -> tf.Tensor:
      def logits_fn(images: tf.Tensor) -> tf.Tensor:
        return model(images, training=False, domain=test.domain)

      images = batch['image']
      if test.attack is not None:
        context = tf.distribute.get_replica_context()
        seed = tf.stack([index, context.replica_id_in_sync_group])
        images = attacks.attack(
          logits_fn, images, batch['label'], test.attack, seed
        )
      return batch_sums(logits_fn(images), batch['label'], batch['weight'])

    @tf.function
    def step(batch: Any, index: tf.Tensor) -> tf.Tensor:
      sums = strategy.run(replica_step, args=(batch, index))
      return strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

    return step


def batch_sums(
  logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
) -> tf.Tensor:
  """Sums over a batch whose padding has weight 0.

  Args:
    logits: float32 [batch, classes].
    labels: integers [batch].
    weights: float32 [batch], 1 for an image and 0 for padding.

  Returns:
    float32 [4]: weights, losses, and images whose class is the first or among
    the first five (fewer if there are fewer classes).
  """
  losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
  top_1 = tf.math.in_top_k(labels, logits, 1)
  top_5 = tf.math.in_top_k(labels, logits, min(5, logits.shape[-1]))
  values = [tf.ones_like(losses), losses, top_1, top_5]
  return tf.stack(
    [tf.reduce_sum(tf.cast(v, tf.float32) * weights) for v in values]
  )


def _means(totals: tf.Tensor, domain: str) -> Result:
  numbers = dict(zip(_SUMS, totals.numpy().tolist()))
  count = numbers['num_examples']
  means = {name: numbers[name] / count for name in _SUMS[1:]}
  return {'num_examples': round(count), **means, 'domain': domain}


def write_result(path: str, result: Result) -> None:
  """Writes a result as JSON, whole or not at all."""
  tf.io.gfile.makedirs(os.path.dirname(path))
  write_text(path, json.dumps(result, indent=2) + '\n')


def write_text(path: str, text: str) -> None:
  """Writes a file, whole or not at all."""
  temporary = f'{path}.tmp'
  with tf.io.gfile.GFile(temporary, 'w') as file:
    file.write(text)
  tf.io.gfile.rename(temporary, path, overwrite=True)
