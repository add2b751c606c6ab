"""Settings of the smallest networks and runs that tests and tools train."""

import pathlib
from typing import Any, Optional

from efficientnet_advprop import config as config_lib

# Seven blocks on images of 16 pixels.
EFFICIENTNET: dict[str, Any] = {
  'image_size': 16,
  'width_coefficient': 0.25,
  'depth_coefficient': 0.1,
}
# The network that traces the soonest.
RESNET: dict[str, Any] = {
  'name': 'resnet-18',
  'image_size': 16,
  'width_coefficient': 0.125,
  'depth_coefficient': 0.5,
}
NUM_TRAIN_IMAGES = 2500  # Of the embedded data set.


def values(
  steps: int,
  batch_size: int = 16,
  model: Optional[dict[str, Any]] = None,
  **train: Any,
) -> dict[str, Any]:
  """Returns the sections of a run of AdvProp on the embedded data set.

  Args:
    steps: how many updates it has.
    batch_size: images in each of them.
    model: the section `model`; None for `EFFICIENTNET`.
    **train: further settings of the section `train`.
  """
  return {
    'model': EFFICIENTNET if model is None else model,
    'data': {
      'num_classes': 10,
      'num_train_images': NUM_TRAIN_IMAGES,
      'num_eval_images': 500,
      'augmentation': 'none',
    },
    'train': {
      'batch_size': batch_size,
      'epochs': steps * batch_size / NUM_TRAIN_IMAGES,
      'warmup_epochs': 0,
      **train,
    },
  }


def config(steps: int, *args: Any, **options: Any) -> config_lib.Config:
  """Returns the run of `values`."""
  return config_lib.from_dict(values(steps, *args, **options))


def overrides(model: dict[str, Any]) -> list[str]:
  """Returns a network's settings as --params_override takes them."""
  return [f'model.{key}={value}' for key, value in model.items()]


def write_settings(
  model_dir: pathlib.Path, settings: config_lib.Config, has_checkpoint: bool
) -> None:
  """Writes what a run leaves in its folder, but for what it has learned."""
  (model_dir / 'config.yaml').write_text(config_lib.to_yaml(settings))
  if has_checkpoint:
    (model_dir / 'checkpoints').mkdir()
    (model_dir / 'checkpoints' / 'ckpt-7.index').touch()
