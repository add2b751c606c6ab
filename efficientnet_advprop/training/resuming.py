"""Records how a run was made: replicas, rules, and settings of every stretch.

Nothing is recorded before the first step is made, so that a command that fails
leaves the files of a run as they were.
"""

import datetime
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
from efficientnet_advprop.training import averaging

# In `layout.json`: how the average counts updates. Runs of earlier versions do
# not have it.
_FIRST_UPDATE = 'first_update'


def record_settings(
  config: config_lib.Config, model_dir: str, step: int
) -> None:
  """Writes the settings of a run that begins, or resumes, at a step.

  `config.yaml` holds the settings of the current stretch. Those of an earlier
  one move to `config-until-step-<step>.yaml` when a run resumes with others, so
  that the files together repeat the run.
  """
  path = os.path.join(model_dir, paths.CONFIG)
  text = config_lib.to_yaml(config)
  if step and tf.io.gfile.exists(path):
    if _same(path, config):
      return
    with tf.io.gfile.GFile(path) as file:
      saved = file.read()
    earlier = os.path.join(model_dir, f'config-until-step-{step}.yaml')
    # A stretch that was made from the same checkpoint before left nothing.
    if not tf.io.gfile.exists(earlier):
      files.write(earlier, saved)
    today = datetime.date.today().isoformat()
    text = (
      f'# Since step {step}, on {today}. The settings before are in'
      f' {os.path.basename(earlier)}.\n{text}'
    )
  files.write(path, text)


def _same(path: str, config: config_lib.Config) -> bool:
  try:
    return config_lib.load_config(path) == config
  except config_lib.ConfigError:
    return False  # Written by another version.


def record_layout(context: tf.distribute.InputContext, model_dir: str) -> None:
  """Writes the replica count with which a new run begins, and its rules."""
  path = os.path.join(model_dir, paths.LAYOUT)
  rules = {_FIRST_UPDATE: averaging.FIRST_UPDATE}
  files.write_json(path, {**_layout(context), **rules})


def first_update(model_dir: str, step: int) -> int:
  """Returns how the average of a run counts updates; see `averaging.decay`.

  Args:
    model_dir: of the run.
    step: from which it resumes. A run of an earlier version keeps its rule, so
      that it resumes to the same bits.
  """
  if not step:
    return averaging.FIRST_UPDATE
  return _read_layout(model_dir).get(_FIRST_UPDATE, 0)


def check_layout(
  config: config_lib.Config,
  source: records.Source,
  context: tf.distribute.InputContext,
  model_dir: str,
) -> None:
  """Compares the replicas of a run that resumes with those it began with.

  On others the same steps come out up to the order of sums, and the log says
  so, unless the division of the batch takes part in what is computed.

  Raises:
    ConfigError: it does; names both layouts and the reason.
  """
  here = _layout(context)
  saved = _read_layout(model_dir)
  began = {key: saved[key] for key in here if key in saved}
  if not saved or here == began:
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
    'This run began on %s and resumes on %s: the same steps up to the order of'
    ' sums, no longer the same bits',
    _describe(began),
    _describe(here),
  )


def _read_layout(model_dir: str) -> dict[str, int]:
  """Reads `layout.json`; nothing where an early version did not write it."""
  path = os.path.join(model_dir, paths.LAYOUT)
  if not tf.io.gfile.exists(path):
    return {}
  with tf.io.gfile.GFile(path) as file:
    return json.load(file)


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
