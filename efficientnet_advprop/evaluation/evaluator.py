"""Evaluation that counts every image exactly once."""

from collections.abc import Mapping
import dataclasses
import os
from typing import Any, Callable, Optional

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop import devices
from efficientnet_advprop.base import disposal
from efficientnet_advprop.base import errors
from efficientnet_advprop.data import bad_records
from efficientnet_advprop.data import caching
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.data import records
from efficientnet_advprop.data import sources
from efficientnet_advprop.evaluation import image_sets
from efficientnet_advprop.evaluation import mistakes
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
    self._cached_source: Optional[records.Source] = None

  def evaluate(
    self,
    test: Optional[config_lib.NamedTestConfig] = None,
    report: Optional[Callable[[int, int], None]] = None,
    images: Optional[image_sets.Images] = None,
    answers: Optional[list[mistakes.Answers]] = None,
  ) -> Result:
    """Runs one test.

    Args:
      test: which images, through which norms, attacked or not; None is the
        plain test.
      report: called with the numbers of images done and in all.
      images: of the test; None finds them.
      answers: gets the answers to all images, of a test without an attack.

    Returns:
      `num_examples`, `loss` (mean cross-entropy without label smoothing),
      `top_1_accuracy` and `top_5_accuracy` as fractions, and `domain`. Under
      attack they are of the worst restart of each image, and `attack` and
      `restarts` say under which. With a cue there are the figures of
      `shape_bias.figures` as well.

    Raises:
      DataError: the images are missing or damaged, or have no such cue.
    """
    test = test or config_lib.NamedTestConfig()
    config, strategy = self._config, self.strategy
    source, classes = images or self.find(test)
    read = source
    if test.cue is not None:
      read = source = sources.with_cue(source, test.cue)
    elif images is None and test.kind == 'split':
      read = self._cached(test, source)
    # A small set need not fill a whole batch.
    replicas = strategy.num_replicas_in_sync
    batch_size = min(
      config.eval.batch_size, -(-source.size // replicas) * replicas
    )
    dataset = strategy.distribute_datasets_from_function(
      lambda context: pipeline.eval_dataset(config, read, context, batch_size)
    )
    step = self.step_for(test, classes, answers is not None)
    totals = tf.constant(0.0, tf.float64)
    if answers is not None:
      answers.append(mistakes.Answers(source, config.data.num_classes))
    with (
      bad_records.data_errors(),
      disposal.disposing(iter(dataset), devices.has_workers(strategy)) as held,
    ):
      for batch in held[0]:
        sums = step(batch)
        if answers is not None:
          sums, *found = sums
          answers[-1].add(*(value.numpy() for value in found))
        totals += tf.cast(sums, tf.float64)
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

  def prepare(self) -> None:
    """Finds the images of the plain test, and decodes them for `data.cache`.

    Raises:
      DataError: they are missing or damaged, or do not fit into the cache.
    """
    test = config_lib.NamedTestConfig()
    self._cached(test, self.find(test).source)

  def _cached(
    self, test: config_lib.NamedTestConfig, source: records.Source
  ) -> records.Source:
    """Returns the run's evaluation split as it is read from `data.cache`.

    Other images come as they are: most are evaluated once.
    """
    own = None, self._config.data.eval_split
    is_own = test.split in own and test.dir is None and test.num_images is None
    if not is_own:
      return source
    if self._cached_source is None:
      self._cached_source = caching.evaluation(self._config, source)
    return self._cached_source

  def step_for(
    self,
    test: config_lib.NamedTestConfig,
    classes: Optional[tuple[int, ...]] = None,
    with_answers: bool = False,
  ) -> Callable[..., Any]:
    """Returns the compiled step of a test, made once for what it computes.

    Args:
      test: see `evaluate`.
      classes: those that may be chosen; None for all.
      with_answers: whether the step also returns answers.

    Returns:
      A function from a batch of `pipeline.eval_dataset`, distributed over the
      replicas, to its sums: of `batch_sums`, then of the cue. With answers, it
      returns also what `mistakes.batch_answers` does, the mistakes of each
      replica in a row of its own.
    """
    key = (test.domain, test.attack, test.restarts, test.cue, classes)
    if (*key, with_answers) not in self._steps:
      step = self._make_step(test, classes, with_answers)
      self._steps[(*key, with_answers)] = step
    return self._steps[(*key, with_answers)]

  def _make_step(
    self,
    test: config_lib.NamedTestConfig,
    classes: Optional[tuple[int, ...]],
    with_answers: bool,
  ) -> Callable[..., Any]:
    model, strategy = self._model, self.strategy

    def replica_step(batch: Mapping[str, tf.Tensor]) -> Any:
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
      if test.cue is not None:
        sums = tf.concat([sums, shape_bias.conflict_sums(logits, batch)], 0)
      if not with_answers:
        return sums
      counts, worst = mistakes.batch_answers(logits, batch)
      return sums, counts, self._in_own_row(worst)

    @tf.function(autograph=False)
    def step(batch: Any) -> Any:
      found = strategy.run(replica_step, args=(batch,))
      total = tf.distribute.ReduceOp.SUM
      return tf.nest.map_structure(
        lambda value: strategy.reduce(total, value, axis=None), found
      )

    return step

  def _in_own_row(self, values: tf.Tensor) -> tf.Tensor:
    """Puts a replica's values into a row that no other replica adds to."""
    context = tf.distribute.get_replica_context()
    replicas = self.strategy.num_replicas_in_sync
    row = tf.one_hot(context.replica_id_in_sync_group, replicas)
    return row[:, None, None] * values[None]
