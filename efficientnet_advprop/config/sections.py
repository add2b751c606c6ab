"""A run's configuration: all sections, and what they must have in common.

A `Config` and its seed determine a run completely. Values are checked where
they enter; a bad one raises `ConfigError`, whose message is one line that names
the key, the value and what is allowed.
"""

import dataclasses

from efficientnet_advprop.base.errors import ConfigError
from efficientnet_advprop.config.attack import AttackConfig
from efficientnet_advprop.config.data import DataConfig
from efficientnet_advprop.config.evaluation import IMAGENET_SETS
from efficientnet_advprop.config.evaluation import EvalConfig
from efficientnet_advprop.config.evaluation import ExportConfig
from efficientnet_advprop.config.evaluation import NamedTestConfig
from efficientnet_advprop.config.fields import check_choice
from efficientnet_advprop.config.methods import MAIN_DOMAIN
from efficientnet_advprop.config.methods import METHODS
from efficientnet_advprop.config.network import ModelConfig
from efficientnet_advprop.config.training import TrainConfig

_IMAGENET_CLASSES = 1000


@dataclasses.dataclass(frozen=True)
class Config:
  """A whole run."""

  model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
  attack: AttackConfig = dataclasses.field(default_factory=AttackConfig)
  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
  eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)
  export: ExportConfig = dataclasses.field(default_factory=ExportConfig)

  def __post_init__(self) -> None:
    known = (MAIN_DOMAIN, *self.auxiliary_domains)
    for name, test in self.eval.tests.items():
      check_choice(f'eval.tests.{name}.domain', test.domain, known)
      self._check_set(f'eval.tests.{name}', test)
    num_images = self.data.num_train_images
    if num_images is not None and self.train.batch_size > num_images:
      allowed = f'at most data.num_train_images={self.data.num_train_images}'
      raise ConfigError('train.batch_size', self.train.batch_size, allowed)
    self._check_domains()
    if self.train.method == 'fast_advprop':
      self._check_fast_advprop()
    if self.eval.checkpoint == 'best' and self.train.keep_best is None:
      allowed = 'newest, or best with train.keep_best'
      raise ConfigError('eval.checkpoint', 'best', allowed)
    # The last weights are those of the network that trains.
    train = self.train
    computes_so = train.precision == train.evaluation_precision
    if self.eval.weights == 'raw' and not computes_so:
      allowed = (
        f'ema with train.precision={train.precision}; train.ema_decay=0 makes'
        ' it the last weights'
      )
      raise ConfigError('eval.weights', 'raw', allowed)

  def _check_set(self, key: str, test: NamedTestConfig) -> None:
    if test.kind not in IMAGENET_SETS:
      return
    if test.dir is None:
      raise ConfigError(f'{key}.dir', None, f'the folder of {test.kind}')
    if self.data.num_classes not in (None, _IMAGENET_CLASSES):
      allowed = f'{_IMAGENET_CLASSES}, as {key} is {test.kind}'
      raise ConfigError('data.num_classes', self.data.num_classes, allowed)

  def _check_domains(self) -> None:
    method = self.train.method
    taken = (MAIN_DOMAIN, *METHODS[method].auxiliary_domains)
    for name in self.train.domains:
      if method != 'fine_grained':
        allowed = 'none, or train.method=fine_grained'
        raise ConfigError('train.domains', name, allowed)
      if name in taken:
        allowed = f'names other than {", ".join(taken)}'
        raise ConfigError('train.domains', name, allowed)
    if method == 'fine_grained' and self.data.augmentation == 'none':
      allowed = 'autoaugment, randaugment with train.method=fine_grained'
      raise ConfigError('data.augmentation', 'none', allowed)

  def _check_fast_advprop(self) -> None:
    """Refuses what the noise pass, which is attack and training, cannot do."""
    needed = {'name': 'pgd', 'num_steps': 1, 'target': 'label'}
    for key, allowed in {**needed, 'batch_norm': 'train'}.items():
      value = getattr(self.attack, key)
      if value != allowed:
        reason = f'{allowed} with train.method=fast_advprop'
        raise ConfigError(f'attack.{key}', value, reason)
    if not self.train.auxiliary_weight:
      allowed = 'above 0 with train.method=fast_advprop'
      raise ConfigError('train.auxiliary_weight', 0, allowed)
    attacked = self.train.batch_size * self.train.fast_fraction
    if attacked < 0.5 or abs(attacked - round(attacked)) > 1e-6:
      allowed = f'a share of {self.train.batch_size} images that is whole'
      raise ConfigError(
        'train.fast_fraction', self.train.fast_fraction, allowed
      )

  @property
  def auxiliary_domains(self) -> tuple[str, ...]:
    domains = METHODS[self.train.method].auxiliary_domains
    return (*domains, *self.train.domains)

  @property
  def mixes(self) -> bool:
    """Whether training images are mixed, and labels soft."""
    return bool(self.data.mixup_alpha or self.data.cutmix_alpha)

  @property
  def steps_per_epoch(self) -> float:
    """Updates in an epoch.

    Raises:
      ConfigError: the number of training images is not known yet; see
        `data.sources.resolved`.
    """
    num_images = self.data.num_train_images
    if num_images is None:
      allowed = 'the number of images, or data that are there to count'
      raise ConfigError('data.num_train_images', None, allowed)
    return num_images / self.train.batch_size

  @property
  def train_steps(self) -> int:
    return max(1, round(self.train.epochs * self.steps_per_epoch))

  @property
  def two_views(self) -> bool:
    """Whether training needs the plain and the augmented crop."""
    return METHODS[self.train.method].two_views
