"""Runs of six steps, what they leave, and comparisons of two of them."""

import json
import os
import pathlib
import shutil
from typing import Any, Optional, Union

import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.config import recipes
from efficientnet_advprop.testing import tiny_runs
from efficientnet_advprop.training import trainer as trainer_lib

ONE_DEVICE = tf.distribute.OneDeviceStrategy('CPU:0')
_VALUES = tiny_runs.values(
  6, model=tiny_runs.RESNET, log_steps=2, checkpoint_steps=2
)

_Path = Union[str, pathlib.Path]


def config(*overrides: str) -> config_lib.Config:
  """Returns six steps of AdvProp, each second one logged and saved."""
  return config_lib.from_dict(recipes.apply_overrides(_VALUES, overrides))


def start(
  model_dir: _Path,
  settings: Optional[config_lib.Config] = None,
  strategy: tf.distribute.Strategy = ONE_DEVICE,
) -> trainer_lib.Trainer:
  """Returns a run, by default that of `config`, which may resume."""
  return trainer_lib.Trainer(settings or config(), strategy, str(model_dir))


def state(trainer: trainer_lib.Trainer) -> list[np.ndarray]:
  """Every variable of a run: weights, statistics, average, optimizer."""
  variables = (
    *trainer.model.variables,
    *trainer.average.variables,
    *trainer.optimizer.variables,
  )
  return [variable.numpy() for variable in variables]


def metrics(model_dir: _Path) -> list[dict[str, Any]]:
  """The lines that a run has logged, without what depends on the machine."""
  with open(os.path.join(model_dir, 'metrics.jsonl'), encoding='utf-8') as file:
    lines = [json.loads(line) for line in file]
  for line in lines:
    assert line.pop('images_per_second') > 0
    assert 0 <= line.pop('input_wait') <= 1
  return lines


def assert_same(ours: Any, theirs: Any) -> None:
  """Fails unless two lists of variables have the same bits."""
  assert len(ours) == len(theirs) > 100
  for one, other in zip(ours, theirs):
    np.testing.assert_array_equal(one, other)


def assert_close(ours: Any, theirs: Any) -> None:
  """Up to the order of sums, enlarged where few values are normalized."""
  assert len(ours) == len(theirs) > 100
  for index, (one, other) in enumerate(zip(ours, theirs)):
    scale = max(0.1, np.abs(other).max())
    assert np.abs(one - other).max() < 3e-4 * scale, index


def cut(whole_dir: _Path, model_dir: pathlib.Path, step: int) -> None:
  """Copies a run as if it had been killed behind a checkpoint."""
  shutil.copytree(whole_dir, model_dir, dirs_exist_ok=True)
  folder = model_dir / 'checkpoints'
  for path in folder.glob('ckpt-*'):
    if int(path.name.split('.')[0].removeprefix('ckpt-')) > step:
      path.unlink()
  (folder / 'checkpoint').write_text('')  # Of no use; the folder is listed.


def cause(trainer: trainer_lib.Trainer) -> str:
  """Trains; returns the line that the run ends with."""
  with pytest.raises(errors.TrainingError) as caught:
    trainer.train()
  assert '\n' not in str(caught.value)
  return str(caught.value)
