"""The section `data`: the images and what is done to them."""

from collections.abc import Mapping
import dataclasses
from typing import Any, ClassVar, Optional

from efficientnet_advprop.base.errors import ConfigError
from efficientnet_advprop.config import fields


@dataclasses.dataclass(frozen=True)
class DataConfig(fields.Checked):
  """Where images come from and how they become network inputs."""

  # A folder of TFRecords or of class folders, or `tfds:<name>`. Empty: the
  # embedded data set.
  dir: str = fields.field('')
  # The split that training reads.
  train_split: str = fields.field('train')
  # The split that evaluation reads.
  eval_split: str = fields.field('validation')
  # Number of classes, and of logits. None: as many as the data have.
  num_classes: int = fields.field(None, optional=True, low=2)
  # Images of the training split; another number there is an error. None: as
  # many as are there.
  num_train_images: int = fields.field(None, optional=True, low=1)
  # Images of the evaluation split; another number there is an error. None: as
  # many as are there.
  num_eval_images: int = fields.field(None, optional=True, low=1)
  # Share of each class of a folder of class folders that evaluation reads and
  # training leaves out, where the folder has no split of its own for it.
  validation_fraction: float = fields.field(0.0, low=0, high=0.9)
  # Seed of that choice, which depends on it and on the names of the files.
  validation_seed: int = fields.field(0, low=0, high=2**31 - 1)
  # Number of leading training shards that are held out; data.eval_split=minival
  # evaluates on them. Source: 20 in the official code.
  minival_shards: int = fields.field(0, low=0)
  # Smallest area of a training crop, as a share of the image. Source: official
  # code.
  min_crop_area: float = fields.field(0.08, above=0, high=1)
  # Evaluation crops the centre size / (size + padding) of the short side, in
  # pixels. Source: official code.
  eval_crop_padding: int = fields.field(32, low=0)
  # What training does to an image after the crop. Source: AutoAugment in the
  # paper, section 5.1.
  augmentation: str = fields.field(
    'autoaugment', choices=('none', 'autoaugment', 'randaugment')
  )
  # Operations for each image, with augmentation=randaugment. Source: official
  # code.
  randaugment_layers: int = fields.field(2, low=1, high=16)
  # Strength of these operations, in levels of 0-30. Source: official code.
  randaugment_magnitude: float = fields.field(10.0, low=0, high=30)
  # Shape of the Beta distribution from which mixup draws how much of another
  # image is mixed in. 0: no mixup.
  mixup_alpha: float = fields.field(0.0, low=0, high=100)
  # The same of CutMix, which pastes a box of another image. 0: no CutMix. With
  # mixup as well, half of the images take either.
  cutmix_alpha: float = fields.field(0.0, low=0, high=100)
  # Encoded records that the shuffle holds in memory. A smaller training set is
  # shuffled perfectly.
  shuffle_window: int = fields.field(16_384, low=1)
  # Number of bad records that are reported and replaced before a run stops.
  max_bad_records: int = fields.field(0, low=0)
  # Where the images of the training and the evaluation split are kept once they
  # are decoded: `memory`, or a local folder, which other runs use as well.
  # None: they are decoded each time. docs/data.md has the details.
  cache: Optional[str] = fields.field(None)
  # A cached training image whose short side has more pixels is reduced to this
  # many. None: images are cached as they are.
  cache_short_side: Optional[int] = fields.field(None, low=8, high=16384)

  REMOVED: ClassVar[Mapping[str, Any]] = {'flip': True}

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.cache is not None and (not self.cache or '://' in self.cache):
      raise ConfigError('cache', self.cache, 'none, memory, or a local folder')
    if self.cache_short_side is not None and self.cache is None:
      allowed = 'none, or with data.cache'
      raise ConfigError('cache_short_side', self.cache_short_side, allowed)
