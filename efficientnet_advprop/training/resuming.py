"""On how many replicas a run began: going on elsewhere is never silent."""

import json
import os
from typing import Optional

from absl import logging
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import files
from efficientnet_advprop.base import paths
from efficientnet_advprop.data import ordering
from efficientnet_advprop.data import records


def record(context: tf.distribute.InputContext, model_dir: str) -> None:
  """Writes down, in a new run's model_dir, where it begins."""
  path = os.path.join(model_dir, paths.LAYOUT)
  files.write_json(path, _layout(context))


def check(
  config: config_lib.Config,
  source: records.Source,
  context: tf.distribute.InputContext,
  model_dir: str,
) -> None:
  """Compares where a run continues with where it began.

  Elsewhere, the same steps come out up to the order of sums, and the log says
  so, unless the division of the batch takes part in what is computed.

  Raises:
    ConfigError: it does; names both layouts and the reason.
  """
  path = os.path.join(model_dir, paths.LAYOUT)
  if not tf.io.gfile.exists(path):
    return  # A run of an earlier version.
  with tf.io.gfile.GFile(path) as file:
    began = json.load(file)
  here = _layout(context)
  if here == began:
    return
  reason = _obstacle(config, source, began, here)
  if reason:
    raise config_lib.ConfigError(
      'strategy',
      _describe(here),
      f'{_describe(began)}, where the run in {model_dir} began, as {reason};'
      ' or another --model_dir',
    )
  logging.warning(
    'This run began on %s and goes on on %s: the same steps up to the order of'
    ' sums, no longer the same bits',
    _describe(began),
    _describe(here),
  )


def _layout(context: tf.distribute.InputContext) -> dict[str, int]:
  return {
    'replicas': context.num_replicas_in_sync,
    'hosts': context.num_input_pipelines,
  }


def _describe(layout: dict[str, int]) -> str:
  return f'{layout["replicas"]} replica(s) of {layout["hosts"]} host(s)'


def _obstacle(
  config: config_lib.Config,
  source: records.Source,
  began: dict[str, int],
  here: dict[str, int],
) -> Optional[str]:
  """Returns why the layout decides on what is computed, if it does."""
  if config.train.accumulation_steps > 1:
    return 'with train.accumulation_steps norms would see other images together'
  if config.data.max_bad_records:
    return 'data.max_bad_records would replace bad records by other images'
  is_shared = ordering.is_shared(source, config)
  if began['hosts'] != here['hosts'] and not is_shared:
    return 'each host shuffles files of its own'
  return None
