"""Evaluation that counts every image exactly once."""

from collections.abc import Mapping
import dataclasses
import os
from typing import Any, Callable, Optional

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.data import bad_records
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.data import sources
from efficientnet_advprop.evaluation import image_sets
from efficientnet_advprop.evaluation import scores
from efficientnet_advprop.evaluation import shape_bias

Result = dict[str, Any]

# Maps images, `training` and `domain` to logits: a network, exported or not.
Network = Callable[..., tf.Tensor]


class Evaluator:
  """Evaluates one network, as often as asked and on any test."""

  def __init__(
    self,
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    model: Network,
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
    self._found: dict[Any, image_sets.Images] = {}

  def evaluate(
    self,
    test: Optional[config_lib.NamedTestConfig] = None,
    report: Optional[Callable[[int, int], None]] = None,
    images: Optional[image_sets.Images] = None,
  ) -> Result:
    """Runs one test.

    Args:
      test: which images, through which norms, attacked or not; None is the
        plain test.
      report: called with the numbers of images done and in all.
      images: of the test; None finds them.

    Returns:
      `num_examples`, `loss` (mean cross-entropy without label smoothing),
      `top_1_accuracy` and `top_5_accuracy` as fractions, and `domain`. Under
      attack they are of the worst restart of each image, and `attack` and
      `restarts` say under which. With a cue there are the figures of
      `shape_bias.figures` beside them.

    Raises:
      DataError: the images are missing or damaged, or have no such cue.
    """
    test = test or config_lib.NamedTestConfig()
    config, strategy = self._config, self.strategy
    source, classes = images or self.find(test)
    if test.cue is not None:
      source = sources.with_cue(source, test.cue)
    # A small set need not fill a whole batch.
    replicas = strategy.num_replicas_in_sync
    batch_size = min(
      config.eval.batch_size, -(-source.size // replicas) * replicas
    )
    dataset = strategy.distribute_datasets_from_function(
      lambda context: pipeline.eval_dataset(config, source, context, batch_size)
    )
    step = self.step_for(test, classes)
    totals = tf.constant(0.0, tf.float64)
    with bad_records.data_errors():
      for batch in dataset:
        totals += tf.cast(step(batch), tf.float64)
        if report is not None:
          report(int(totals[0]), source.size)
    if classes is not None and totals[1] > scores.IMPOSSIBLE_LOSS:
      place = os.path.dirname(source.files[0])
      raise errors.DataError(
        f'{place}: holds images of other classes than the {len(classes)} of'
        f' {test.kind}'
      )
    result: Result = {**scores.means(totals), 'domain': test.domain}
    if test.attack is not None:
      attack = dataclasses.asdict(test.attack)
      result.update(attack=attack, restarts=test.restarts)
    if test.cue is not None:
      result.update(
        shape_bias.figures(
          totals.numpy()[len(scores.SUMS) :], test.cue, source.name
        )
      )
    return result

  def find(self, test: config_lib.NamedTestConfig) -> image_sets.Images:
    """Finds the images of a test, once for all tests of the same images."""
    key = test.kind, test.dir, test.split, test.num_images
    if key not in self._found:
      self._found[key] = image_sets.find(self._config, test)
    return self._found[key]

  def step_for(
    self,
    test: config_lib.NamedTestConfig,
    classes: Optional[tuple[int, ...]] = None,
  ) -> Callable[..., tf.Tensor]:
    """The compiled step of a test, made once for what it computes.

    Args:
      test: see `evaluate`.
      classes: those that may be chosen; None for all.

    Returns:
      A function from a batch of `pipeline.eval_dataset`, distributed over the
      replicas, to its sums: of `batch_sums`, then of the cue.
    """
    key = (test.domain, test.attack, test.restarts, test.cue, classes)
    if key not in self._steps:
      self._steps[key] = self._make_step(test, classes)
    return self._steps[key]

  def _make_step(
    self, test: config_lib.NamedTestConfig, classes: Optional[tuple[int, ...]]
  ) -> Callable[..., tf.Tensor]:
    model, strategy = self._model, self.strategy

    def replica_step(batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
      def logits_fn(images: tf.Tensor) -> tf.Tensor:
        logits = model(images, training=False, domain=test.domain)
        return logits if classes is None else scores.masked_to(logits, classes)

      if test.attack is not None:
        worst = scores.worst_scores(
          logits_fn, batch, test.attack, test.restarts
        )
        return scores.batch_sums(worst, batch['weight'])
      logits = logits_fn(batch['image'])
      found = scores.image_scores(logits, batch['label'])
      sums = scores.batch_sums(found, batch['weight'])
      if test.cue is None:
        return sums
      return tf.concat([sums, shape_bias.conflict_sums(logits, batch)], 0)

    @tf.function(autograph=False)
    def step(batch: Any) -> tf.Tensor:
      sums = strategy.run(replica_step, args=(batch,))
      return strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

    return step
