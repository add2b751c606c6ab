"""The sections of a run's configuration, as frozen dataclasses.

A `Config` and its seed determine a run completely. Values are checked where
they enter; a bad one raises `ConfigError`, whose message is one line that names
the key, the value and what is allowed.
"""

from collections.abc import Mapping
import dataclasses
import math
from typing import Optional

from efficientnet_advprop.base.errors import ConfigError
from efficientnet_advprop.config import architectures
from efficientnet_advprop.config import fields
from efficientnet_advprop.config.fields import check_choice
from efficientnet_advprop.config.methods import MAIN_DOMAIN
from efficientnet_advprop.config.methods import METHODS

# Sets of test images that are not a split like any other: ImageNet's variants,
# and the 15 corruptions in 5 severities of any data set.
IMAGENET_SETS = (
  *('imagenet_c', 'imagenet_a', 'imagenet_r', 'imagenet_v2'),
  *('imagenet_sketch', 'stylized_imagenet'),
)
_IMAGENET_CLASSES = 1000
TEST_KINDS = ('split', 'corruptions', *IMAGENET_SETS)


@dataclasses.dataclass(frozen=True)
class ModelConfig(fields.Checked):
  """The network. A value of None means the model family's own."""

  name: str = fields.field('efficientnet-b0', choices=architectures.MODEL_NAMES)
  width_coefficient: float = fields.field(None, optional=True, above=0, high=10)
  depth_coefficient: float = fields.field(None, optional=True, above=0, high=10)
  # Height and width of the network's input, in pixels.
  image_size: int = fields.field(None, optional=True, low=8, high=4096)
  dropout_rate: float = fields.field(None, optional=True, low=0, high=0.99)
  # Of the last block; earlier ones survive more often, linearly in the depth.
  survival_probability: float = fields.field(
    None, optional=True, above=0, high=1
  )
  # 1 keeps the resolution of small images, 2 is the paper's. A ResNet with 1
  # has a 3x3 stem without pooling.
  stem_stride: int = fields.field(2, low=1, high=2)
  batch_norm_momentum: float = fields.field(
    None, optional=True, low=0, high=0.99999
  )
  # Of the pixels that the weights expect: `advprop` for [-1, 1], `imagenet`
  # for those less ImageNet's mean and over its deviation, as in the official
  # training without AdvProp. The network takes [-1, 1] all the same.
  normalization: str = fields.field('advprop', choices=('advprop', 'imagenet'))

  def __post_init__(self) -> None:
    super().__post_init__()
    family = architectures.ARCHITECTURES[self.name]
    for name in (
      *('width_coefficient', 'depth_coefficient', 'image_size'),
      *('dropout_rate', 'survival_probability', 'batch_norm_momentum'),
    ):
      if getattr(self, name) is None:
        self._set(name, getattr(family, name))
    for name in ('dropout_rate', 'survival_probability'):
      if self.is_resnet and getattr(self, name) != getattr(family, name):
        allowed = f'{getattr(family, name):g}: {self.name} drops nothing'
        raise ConfigError(name, getattr(self, name), allowed)

  @property
  def architecture(self) -> architectures.Architecture:
    return architectures.ARCHITECTURES[self.name]

  @property
  def is_resnet(self) -> bool:
    return self.architecture.family == 'resnet'


@dataclasses.dataclass(frozen=True)
class AttackConfig(fields.Checked):
  """How adversarial images are made (paper, sections 5.1 and 5.4).

  `pgd` starts at a random point of the epsilon ball and projects onto the ball
  after each step; `ifgsm` starts at the image itself; `gd` starts at random and
  does not project; `fgsm` is one step of the length epsilon from the image.
  Epsilon and step size are in units of 0-255 pixel values.
  """

  name: str = fields.field('pgd', choices=('pgd', 'ifgsm', 'gd', 'fgsm'))
  epsilon: float = fields.field(1.0, low=0, high=255)
  # None: 1 as in the paper; epsilon for fgsm.
  step_size: float = fields.field(None, optional=True, low=0, high=255)
  # None: the paper's epsilon + 1, but 1 at epsilon 1; 1 for fgsm.
  num_steps: int = fields.field(None, optional=True, low=1, high=1000)
  # 'random' moves towards a wrong class, drawn for each image; 'label' moves
  # away from the true class, which is the stronger attack. The paper does not
  # name its target. The public code of its group and the ports of AdvProp draw
  # wrong classes (docs/attacks.md lists them), and so does the default.
  target: str = fields.field('random', choices=('label', 'random'))
  # Whether the attacked network normalizes by moving ('eval') or by batch
  # statistics ('train'). The paper does not say; the first author's other
  # public code uses the moving ones, which also leaves them untouched.
  batch_norm: str = fields.field('eval', choices=('eval', 'train'))
  # Share of images whose attack starts at the image, not at a random point.
  clean_start_probability: float = fields.field(0.0, low=0, high=1)

  def __post_init__(self) -> None:
    super().__post_init__()
    single = self.name == 'fgsm'
    if self.num_steps is None:
      steps = 1 if single or self.epsilon <= 1 else math.ceil(self.epsilon) + 1
      self._set('num_steps', steps)
    if self.step_size is None:
      self._set('step_size', self.epsilon if single else 1.0)
    if single and (self.num_steps, self.step_size) != (1, self.epsilon):
      value = f'num_steps={self.num_steps}, step_size={self.step_size:g}'
      allowed = '1 step of size epsilon for fgsm; name ifgsm for others'
      raise ConfigError('name', value, allowed)

  @property
  def random_start(self) -> bool:
    return self.name in ('pgd', 'gd')

  @property
  def is_random(self) -> bool:
    return self.random_start or self.target == 'random'

  @property
  def projects(self) -> bool:
    return self.name != 'gd'


@dataclasses.dataclass(frozen=True)
class TestAttackConfig(AttackConfig):
  """How a test attacks: as training does, but untargeted unless it says so.

  A test measures robustness, and robustness is what the strong attack leaves.
  """

  __test__ = False  # Not a test case, whatever its name makes pytest think.

  target: str = fields.field('label', choices=('label', 'random'))


@dataclasses.dataclass(frozen=True)
class DataConfig(fields.Checked):
  """Where images come from and how they become network inputs."""

  # A folder of TFRecords or of class folders, or `tfds:<name>`. Empty: the
  # embedded data set.
  dir: str = fields.field('')
  train_split: str = fields.field('train')
  eval_split: str = fields.field('validation')
  num_classes: int = fields.field(1000, low=2)
  num_train_images: int = fields.field(1_281_167, low=1)
  num_eval_images: int = fields.field(50_000, low=1)
  # The first so many training shards are held out (minival of the official
  # code: 20); evaluate on them with data.eval_split=minival.
  minival_shards: int = fields.field(0, low=0)
  # Smallest area of the Inception crop as a share of the image.
  min_crop_area: float = fields.field(0.08, above=0, high=1)
  # Evaluation crops the centre size/(size + padding) of the short side.
  eval_crop_padding: int = fields.field(32, low=0)
  flip: bool = fields.field(True)
  augmentation: str = fields.field(
    'autoaugment', choices=('none', 'autoaugment', 'randaugment')
  )
  randaugment_layers: int = fields.field(2, low=1, high=16)
  randaugment_magnitude: float = fields.field(10.0, low=0, high=30)
  # Encoded records that the shuffle holds in memory. A smaller training set is
  # shuffled perfectly.
  shuffle_window: int = fields.field(16_384, low=1)
  # How many undecodable records a run may replace before it stops.
  max_bad_records: int = fields.field(0, low=0)


@dataclasses.dataclass(frozen=True)
class DomainConfig(fields.Checked):
  """A further auxiliary domain of the method `fine_grained`."""

  # The image as augmentation leaves it, or the crop that it starts from.
  view: str = fields.field('augmented', choices=('augmented', 'plain'))
  # Turns the view into adversarial images.
  attack: Optional[AttackConfig] = None


@dataclasses.dataclass(frozen=True)
class TrainConfig(fields.Checked):
  """The optimization. Defaults are the official EfficientNet recipe."""

  method: str = fields.field('advprop', choices=tuple(METHODS))
  # Of `fine_grained`, beside those that it always has.
  domains: Mapping[str, DomainConfig] = dataclasses.field(default_factory=dict)
  optimizer: str = fields.field('rmsprop', choices=('rmsprop', 'sgd'))
  # Another run, or a checkpoint of it, whose averaged weights a new run starts
  # from; None starts from random ones.
  init_checkpoint: Optional[str] = fields.field(None)
  epochs: float = fields.field(350.0, above=0)
  batch_size: int = fields.field(4096, low=1)  # Over all replicas.
  # Parts into which a replica's batch is cut, to hold one at a time in memory.
  accumulation_steps: int = fields.field(1, low=1)
  # Whether blocks are computed again backward instead of stored.
  rematerialize: bool = fields.field(False)
  # At a batch of 256; scaled linearly with the batch size.
  learning_rate: float = fields.field(0.016, low=0)
  warmup_epochs: float = fields.field(5.0, low=0)
  decay_factor: float = fields.field(0.97, above=0, high=1)
  decay_epochs: float = fields.field(2.4, above=0)
  weight_decay: float = fields.field(1e-5, low=0)
  # Factor of the summed cross-entropies, not of the weight decay. With 2,
  # vanilla training has as large a loss as AdvProp, which sums two.
  loss_weight: float = fields.field(1.0, above=0, high=1000)
  label_smoothing: float = fields.field(0.1, low=0, high=0.99)
  ema_decay: float = fields.field(0.9999, low=0, high=0.999999)
  precision: str = fields.field(
    'float32', choices=('float32', 'mixed_bfloat16')
  )
  seed: int = fields.field(0, low=0, high=2**31 - 1)
  # Steps between two log lines; one call of the compiled host loop.
  log_steps: int = fields.field(100, low=1)
  # Steps between two checkpoints, in whole log intervals. None: one epoch.
  checkpoint_steps: Optional[int] = fields.field(None, low=1)
  keep_checkpoints: int = fields.field(3, low=1)
  # Epochs between two evaluations in train_and_eval.
  eval_epochs: float = fields.field(10.0, above=0)


@dataclasses.dataclass(frozen=True)
class TestConfig(fields.Checked):
  """A named evaluation beside the plain one, written to evals/<name>.json."""

  __test__ = False  # Not a test case, whatever its name makes pytest think.

  kind: str = fields.field('split', choices=TEST_KINDS)
  # Where the set lies: a folder or `tfds:<name>`. None: data.dir, and for
  # `corruptions` a folder of the run's own, which is made on the first use.
  dir: Optional[str] = fields.field(None)
  # None: data.eval_split; for ImageNet's variants the folder of classes itself.
  split: Optional[str] = fields.field(None)
  # How many images the set, or each of its corruptions, has to hold. None: the
  # published number, or no expectation where there is none.
  num_images: Optional[int] = fields.field(None, low=1)
  domain: str = fields.field(MAIN_DOMAIN)
  # Evaluate on adversarial images made from these settings.
  attack: Optional[TestAttackConfig] = None
  # How often the attack is tried on each image, with other random numbers each
  # time; the worst outcome counts.
  restarts: int = fields.field(1, low=1, high=1000)
  # A second class that the images point to: `texture` for the records' feature
  # image/texture/label. Adds the shape bias on images whose two classes differ.
  cue: Optional[str] = fields.field(None)

  def __post_init__(self) -> None:
    super().__post_init__()
    attack = self.attack
    if attack is not None and attack.batch_norm != 'eval':
      allowed = 'eval: a test leaves the moving statistics alone'
      raise ConfigError('attack.batch_norm', attack.batch_norm, allowed)
    if self.restarts > 1 and (attack is None or not attack.is_random):
      reason = f'{attack.name} draws no numbers' if attack else 'no attack'
      raise ConfigError('restarts', self.restarts, f'1: {reason}')
    if self.cue is not None and attack is not None:
      allowed = 'none with an attack: bias is told on the images as they are'
      raise ConfigError('cue', self.cue, allowed)


@dataclasses.dataclass(frozen=True)
class EvalConfig(fields.Checked):
  """How a network is evaluated."""

  batch_size: int = fields.field(1024, low=1)  # Over all replicas.
  weights: str = fields.field('ema', choices=('ema', 'raw'))
  # A checkpoint, the folder of an exported version or a TFLite file to evaluate
  # with --mode=eval. None: the newest checkpoint in model_dir.
  network: Optional[str] = fields.field(None)
  tests: Mapping[str, TestConfig] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ExportConfig(fields.Checked):
  """What is exported beside the SavedModel, and the test of all files."""

  tflite: str = fields.field(
    'none', choices=('none', 'float32', 'float16', 'dynamic', 'int8')
  )
  # Images of data.eval_split on which the files must agree with the network.
  verified_images: int = fields.field(500, low=1)
  # Training images from which int8 learns the ranges of activations.
  calibration_images: int = fields.field(200, low=1)
  # How much top-1 accuracy a TFLite file other than float32 may lose on the
  # verified images, in percentage points.
  max_accuracy_drop: float = fields.field(1.0, low=0, high=100)


@dataclasses.dataclass(frozen=True)
class Config:
  """A whole run."""

  model: ModelConfig = ModelConfig()
  attack: AttackConfig = AttackConfig()
  data: DataConfig = DataConfig()
  train: TrainConfig = TrainConfig()
  eval: EvalConfig = EvalConfig()
  export: ExportConfig = ExportConfig()

  def __post_init__(self) -> None:
    known = (MAIN_DOMAIN, *self.auxiliary_domains)
    for name, test in self.eval.tests.items():
      check_choice(f'eval.tests.{name}.domain', test.domain, known)
      self._check_set(f'eval.tests.{name}', test)
    if self.train.batch_size > self.data.num_train_images:
      allowed = f'at most data.num_train_images={self.data.num_train_images}'
      raise ConfigError('train.batch_size', self.train.batch_size, allowed)
    self._check_domains()

  def _check_set(self, key: str, test: TestConfig) -> None:
    if test.kind not in IMAGENET_SETS:
      return
    if test.dir is None:
      raise ConfigError(f'{key}.dir', None, f'where {test.kind} lies')
    if self.data.num_classes != _IMAGENET_CLASSES:
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

  @property
  def auxiliary_domains(self) -> tuple[str, ...]:
    domains = METHODS[self.train.method].auxiliary_domains
    return (*domains, *self.train.domains)

  @property
  def steps_per_epoch(self) -> float:
    return self.data.num_train_images / self.train.batch_size

  @property
  def train_steps(self) -> int:
    return max(1, round(self.train.epochs * self.steps_per_epoch))

  @property
  def two_views(self) -> bool:
    """Whether training needs the plain and the augmented crop."""
    return METHODS[self.train.method].two_views
