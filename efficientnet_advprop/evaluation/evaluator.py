"""Evaluation that counts every image exactly once."""

from collections.abc import Mapping, Sequence
import dataclasses
import os
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf

from efficientnet_advprop import attacks
from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import files
from efficientnet_advprop.base import randomness
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.data import records
from efficientnet_advprop.data import sources
from efficientnet_advprop.evaluation import image_sets
from efficientnet_advprop.evaluation import shape_bias

Result = dict[str, Any]

# Maps images, `training` and `domain` to logits: a network, exported or not.
Network = Callable[..., tf.Tensor]

# The logit of a class that is not to be chosen, and a loss that only an image
# of such a class can have.
_NEVER, _IMPOSSIBLE_LOSS = -1e30, 1e20
_SUMS = ('num_examples', 'loss', 'top_1_accuracy', 'top_5_accuracy')


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

  def evaluate(
    self,
    test: Optional[config_lib.TestConfig] = None,
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
    test = test or config_lib.TestConfig()
    config, strategy = self._config, self.strategy
    source, expected, classes = images or image_sets.find(config, test)
    if test.cue is not None:
      source = sources.with_cue(source, test.cue)
    # A small set need not fill a whole batch.
    replicas = strategy.num_replicas_in_sync
    batch_size = min(
      config.eval.batch_size, -(-expected // replicas) * replicas
    )
    dataset = strategy.distribute_datasets_from_function(
      lambda context: pipeline.source_dataset(
        config, source, expected, context, batch_size
      )
    )
    step = self.step_for(test, classes)
    totals = tf.constant(0.0, tf.float64)
    try:
      for batch in dataset:
        totals += tf.cast(step(batch), tf.float64)
        if report is not None:
          report(int(totals[0]), expected)
    except tf.errors.OpError as error:
      raise records.explain(error) from error
    if classes is not None and totals[1] > _IMPOSSIBLE_LOSS:
      place = os.path.dirname(source.files[0])
      raise errors.DataError(
        f'{place}: holds images of other classes than the {len(classes)} of'
        f' {test.kind}'
      )
    result = _means(totals, test.domain)
    if test.attack is not None:
      attack = dataclasses.asdict(test.attack)
      result.update(attack=attack, restarts=test.restarts)
    if test.cue is not None:
      result.update(
        shape_bias.figures(totals.numpy()[len(_SUMS) :], test.cue, source.name)
      )
    return result

  def step_for(
    self,
    test: config_lib.TestConfig,
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
    self, test: config_lib.TestConfig, classes: Optional[tuple[int, ...]]
  ) -> Callable[..., tf.Tensor]:
    model, strategy = self._model, self.strategy

    def replica_step(batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
      def logits_fn(images: tf.Tensor) -> tf.Tensor:
        logits = model(images, training=False, domain=test.domain)
        return logits if classes is None else only(logits, classes)

      if test.attack is not None:
        scores = worst_scores(logits_fn, batch, test.attack, test.restarts)
        return batch_sums(scores, batch['weight'])
      logits = logits_fn(batch['image'])
      sums = batch_sums(image_scores(logits, batch['label']), batch['weight'])
      if test.cue is None:
        return sums
      return tf.concat([sums, shape_bias.conflict_sums(logits, batch)], 0)

    @tf.function(autograph=False)
    def step(batch: Any) -> tf.Tensor:
      sums = strategy.run(replica_step, args=(batch,))
      return strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

    return step


def only(logits: tf.Tensor, classes: Sequence[int]) -> tf.Tensor:
  """Leaves no other choice than some classes.

  Args:
    logits: float32 [batch, classes].
    classes: that may be chosen.

  Returns:
    The logits of those, and in all other places less than any logit.
  """
  may_be_chosen = np.isin(np.arange(logits.shape[-1]), classes)
  return tf.where(may_be_chosen, logits, _NEVER)


def image_scores(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
  """How well each image of a batch is recognized.

  Args:
    logits: float32 [batch, classes].
    labels: integers [batch].

  Returns:
    float32 [3, batch]: losses; 1 or 0 as the class is the first or not, and
    among the first five or not (fewer if there are fewer classes).
  """
  losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
  top_1 = tf.math.in_top_k(labels, logits, 1)
  top_5 = tf.math.in_top_k(labels, logits, min(5, logits.shape[-1]))
  return tf.stack([tf.cast(v, tf.float32) for v in (losses, top_1, top_5)])


def worst_scores(
  logits_fn: Callable[[tf.Tensor], tf.Tensor],
  batch: Mapping[str, tf.Tensor],
  attack: config_lib.AttackConfig,
  restarts: int,
) -> tf.Tensor:
  """How well each image is recognized when the attack may try again.

  Each restart draws from the image's seed and its own number, so that the
  images are those of any other batch and number of replicas, and those of k
  restarts are among those of k + 1.

  Args:
    logits_fn: maps images to logits [batch, classes].
    batch: `image`, `label` and `seed` of `pipeline.eval_dataset`.
    attack: how images are attacked.
    restarts: how often, at least 1.

  Returns:
    Scores as of `image_scores`: for each image by itself the highest loss of
    all restarts, and 1 only if it is 1 at every restart.
  """
  images, labels = batch['image'], batch['label']

  def restarted(
    number: tf.Tensor, worst: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor]:
    seeds = randomness.fold(batch['seed'], randomness.RESTART + number)
    adversarial = attacks.attack(logits_fn, images, labels, attack, seeds)
    scores = image_scores(logits_fn(adversarial), labels)
    losses = tf.maximum(worst[:1], scores[:1])
    return number + 1, tf.concat(
      [losses, tf.minimum(worst[1:], scores[1:])], axis=0
    )

  # No loss is below 0.
  best = tf.concat(
    [tf.zeros([1, images.shape[0]]), tf.ones([2, images.shape[0]])], axis=0
  )
  start = tf.constant(0, tf.int64)
  # A loop, as many restarts of many steps would make a huge graph.
  _, worst = tf.while_loop(
    lambda number, _: number < restarts,
    restarted,
    (start, best),
    parallel_iterations=1,
  )
  return worst


def batch_sums(scores: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
  """Sums over a batch whose padding has weight 0.

  Args:
    scores: float32 [3, batch] of `image_scores`.
    weights: float32 [batch], 1 for an image and 0 for padding.

  Returns:
    float32 [4]: the sums of weights, losses, and images whose class is the
    first or among the first five.
  """
  values = tf.concat([tf.ones_like(scores[:1]), scores], 0)
  return tf.reduce_sum(values * weights, 1)


def _means(totals: tf.Tensor, domain: str) -> Result:
  numbers = dict(zip(_SUMS, totals.numpy().tolist()))
  count = numbers['num_examples']
  means = {name: numbers[name] / count for name in _SUMS[1:]}
  return {'num_examples': round(count), **means, 'domain': domain}


def write_result(path: str, result: Result) -> None:
  """Writes a result as JSON, whole or not at all."""
  tf.io.gfile.makedirs(os.path.dirname(path))
  files.write_json(path, result, indent=2)
