"""The sections of a run's configuration, as frozen dataclasses.

A `Config` and its seed determine a run completely. Values are checked where
they enter; a bad one raises `ConfigError`, whose message is one line that names
the key, the value and what is allowed.
"""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any, ClassVar, Optional

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
BEST_METRICS = ('top_1_accuracy', 'top_5_accuracy', 'loss')
TEST_KINDS = ('split', 'corruptions', *IMAGENET_SETS)


@dataclasses.dataclass(frozen=True)
class ModelConfig(fields.Checked):
  """The network. A value of None selects the network's own."""

  # The network, which brings its scaling. Source: paper, section 5.1 and 5.4.
  name: str = fields.field('efficientnet-b0', choices=architectures.MODEL_NAMES)
  # Multiplies the numbers of filters, which are rounded to multiples of 8.
  # Source: EfficientNet paper, section 3.3.
  width_coefficient: float = fields.field(None, optional=True, above=0, high=10)
  # Multiplies the numbers of blocks, rounded up. Source: EfficientNet paper,
  # section 3.3.
  depth_coefficient: float = fields.field(None, optional=True, above=0, high=10)
  # Height and width of the network's input, in pixels. Source: official code.
  image_size: int = fields.field(None, optional=True, low=8, high=4096)
  # Share of the features that training drops before the classifier. Source:
  # official code.
  dropout_rate: float = fields.field(None, optional=True, low=0, high=0.99)
  # Probability that training keeps the last block; it rises linearly to 1 at
  # the first block. Source: official code.
  survival_probability: float = fields.field(
    None, optional=True, above=0, high=1
  )
  # Stride of the first convolution: 1 keeps the resolution of small images, and
  # gives a ResNet a 3x3 stem without pooling. Source: 2 in all papers.
  stem_stride: int = fields.field(2, low=1, high=2)
  # Share of the old value when a moving statistic moves. Source: paper, section
  # 5.1.
  batch_norm_momentum: float = fields.field(
    None, optional=True, low=0, high=0.99999
  )
  # Which pixels the weights expect: `advprop` for [-1, 1]; `imagenet` for those
  # less ImageNet's mean and over its deviation, as in the official training
  # without AdvProp; `lite` for (p - 127) / 128 of p in [0, 255], as in the
  # official EfficientNet-Lites. The network takes [-1, 1] all the same. None:
  # `lite` for EfficientNet-Lites, else `advprop`.
  normalization: str = fields.field(
    None, optional=True, choices=('advprop', 'imagenet', 'lite')
  )

  def __post_init__(self) -> None:
    super().__post_init__()
    family = architectures.ARCHITECTURES[self.name]
    for name in (
      *('width_coefficient', 'depth_coefficient', 'image_size'),
      *('dropout_rate', 'survival_probability', 'batch_norm_momentum'),
      'normalization',
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

  # Which attack. Source: paper, sections 5.1 and 5.4.
  name: str = fields.field('pgd', choices=('pgd', 'ifgsm', 'gd', 'fgsm'))
  # How far a pixel may move, in levels of 0-255. Source: paper, section 5.1.
  epsilon: float = fields.field(1.0, low=0, high=255)
  # How far a step moves a pixel, in levels of 0-255. None: 1; epsilon for fgsm.
  # Source: paper, section 5.1.
  step_size: float = fields.field(None, optional=True, low=0, high=255)
  # Steps of the attack. None: epsilon + 1, but 1 at epsilon 1; 1 for fgsm.
  # Source: paper, section 5.1.
  num_steps: int = fields.field(None, optional=True, low=1, high=1000)
  # `random` moves towards a wrong class, drawn for each image; `label` moves
  # away from the true class, which is the stronger attack. Source: not in the
  # paper; `random` in the public code of its group and in the ports of AdvProp
  # (docs/attacks.md lists them).
  target: str = fields.field('random', choices=('label', 'random'))
  # Whether the attacked network normalizes by moving (`eval`) or by batch
  # statistics (`train`). Moving ones also stay untouched by the attack. Source:
  # not in the paper; `eval` in the first author's other public code.
  batch_norm: str = fields.field('eval', choices=('eval', 'train'))

  REMOVED: ClassVar[Mapping[str, Any]] = {'clean_start_probability': 0.0}

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
class EvalAttackConfig(AttackConfig):
  """How a test attacks: as training does, but untargeted unless it says so.

  A test measures robustness, and robustness is what the strong attack leaves.
  """

  target: str = fields.field('label', choices=('label', 'random'))


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


@dataclasses.dataclass(frozen=True)
class DomainConfig(fields.Checked):
  """A further auxiliary domain of the method `fine_grained`."""

  # The image as augmentation leaves it, or the crop that it starts from.
  view: str = fields.field('augmented', choices=('augmented', 'plain'))
  # Turns the view into adversarial images. None: it stays as it is.
  attack: Optional[AttackConfig] = None


@dataclasses.dataclass(frozen=True)
class TrainConfig(fields.Checked):
  """The optimization. Defaults are the official EfficientNet recipe."""

  # Which passes a batch makes, through which norms; docs/training.md has a
  # table. Source: paper, sections 3, 4.3 and 5.4.
  method: str = fields.field('advprop', choices=METHODS)
  # Additional auxiliary domains of the method `fine_grained`, by their names.
  # Source: paper, section 4.2.
  domains: Mapping[str, DomainConfig] = dataclasses.field(default_factory=dict)
  # Which rule updates the weights. `adamw` is Keras's, which applies
  # weight_decay to the weights themselves; with the others it is a penalty in
  # the loss. Source: rmsprop in the paper, section 5.1.
  optimizer: str = fields.field('rmsprop', choices=('rmsprop', 'sgd', 'adamw'))
  # Weights from which a new run starts: another run or one of its checkpoints,
  # whose averaged weights count, or published weights (docs/weights.md). None:
  # random weights.
  init_checkpoint: Optional[str] = fields.field(None)
  # Length of the training. Source: official code.
  epochs: float = fields.field(350.0, above=0)
  # Images of a step, over all replicas. Source: official code.
  batch_size: int = fields.field(4096, low=1)
  # Parts into which a replica's batch is cut, to hold one at a time in memory.
  accumulation_steps: int = fields.field(1, low=1)
  # Whether blocks are recomputed in the backward pass instead of stored.
  rematerialize: bool = fields.field(False)
  # Learning rate at a batch of 256; it is scaled linearly with the batch size.
  # Source: paper, section 5.1 (0.256 at 4096).
  learning_rate: float = fields.field(0.016, low=0)
  # Epochs in which the rate rises linearly from 0. Source: official code.
  warmup_epochs: float = fields.field(5.0, low=0)
  # `staircase` multiplies the rate by `decay_factor` every `decay_epochs`, or
  # at each epoch of `decay_at`; `cosine` falls to 0 at the last step.
  schedule: str = fields.field('staircase', choices=('staircase', 'cosine'))
  # Factor by which the rate falls every decay_epochs. Source: paper, section
  # 5.1.
  decay_factor: float = fields.field(0.97, above=0, high=1)
  # Epochs between two falls of the rate, counted from step 0. Source: paper,
  # section 5.1.
  decay_epochs: float = fields.field(2.4, above=0)
  # Epochs at which the rate falls, in place of every decay_epochs.
  decay_at: tuple[float, ...] = fields.field((), above=0)
  # Factor of half the sum of squares of all weights but those of norms, in the
  # loss. Source: paper, section 5.1.
  weight_decay: float = fields.field(1e-5, low=0)
  # Share of the images that `fast_advprop` attacks; the others stay clean.
  # Source: Fast AdvProp's code.
  fast_fraction: float = fields.field(0.2, above=0, high=0.9)
  # Number of equal parts of a pass, over all replicas, whose batch statistics
  # are separate. Source: 1 in the paper; the official code has groups of 8
  # replicas or more, and Fast AdvProp's one for each of 4 GPUs.
  norm_groups: int = fields.field(1, low=1, high=65536)
  # Whether the weights of norms decay, too.
  decay_norms: bool = fields.field(False)
  # Largest global norm of an update's gradients; larger ones are scaled down.
  clip_norm: Optional[float] = fields.field(None, above=0)
  # Factor of the summed cross-entropies, not of the weight decay. With 2,
  # vanilla training has as large a loss as AdvProp, which sums two.
  loss_weight: float = fields.field(1.0, above=0, high=1000)
  # Factor of the losses of all auxiliary passes. None: 1, the paper's sum; .5
  # for `fast_advprop`, as its authors have it.
  auxiliary_weight: float = fields.field(None, optional=True, low=0, high=1000)
  # Share of the label that is spread over all classes. Source: official code.
  label_smoothing: float = fields.field(0.1, low=0, high=0.99)
  # Decay of the moving average of weights and statistics for each step; 0 keeps
  # the last weights. Source: official code.
  ema_decay: float = fields.field(0.9999, low=0, high=0.999999)
  # Type of the network's arithmetic; weights stay float32. `mixed_float16` also
  # scales the loss, and evaluates in float32 (docs/training.md).
  precision: str = fields.field(
    'float32', choices=('float32', 'mixed_bfloat16', 'mixed_float16')
  )
  # What XLA compiles: `layers` some fused functions, `step` the whole step, on
  # one device. None: what was fastest on the device; see execution.py.
  compile: Optional[str] = fields.field(
    None, choices=('none', 'layers', 'step')
  )
  # Whether TensorFlow computes the same bits each time, so that a run that
  # resumes equals one that was never interrupted. None: yes, but not on GPUs,
  # where it costs speed (docs/reliability.md).
  deterministic: Optional[bool] = fields.field(None)
  # Determines the run completely, together with all other settings.
  seed: int = fields.field(0, low=0, high=2**31 - 1)
  # Steps between two log lines, which are one call of the compiled host loop.
  log_steps: int = fields.field(100, low=1)
  # Steps between two checkpoints, in whole log intervals. None: one epoch.
  checkpoint_steps: Optional[int] = fields.field(None, low=1)
  # Number of newest checkpoints that are kept.
  keep_checkpoints: int = fields.field(3, low=1)
  # Epochs between two evaluations in train_and_eval.
  eval_epochs: float = fields.field(10.0, above=0)
  # Metric of these evaluations whose best checkpoint is kept in `best/`, with
  # --mode=train_and_eval; eval.checkpoint=best uses it.
  keep_best: Optional[str] = fields.field(None, choices=BEST_METRICS)
  # Number of evaluations without a better `keep_best` after which training
  # ends. None: it never ends early.
  patience: Optional[int] = fields.field(None, low=1)

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.auxiliary_weight is None:
      fast = self.method == 'fast_advprop'
      self._set('auxiliary_weight', 0.5 if fast else 1.0)
    if self.patience is not None and self.keep_best is None:
      allowed = f'none, or with train.keep_best: {", ".join(BEST_METRICS)}'
      raise ConfigError('patience', self.patience, allowed)
    if self.decay_at and self.schedule != 'staircase':
      allowed = 'none with train.schedule=cosine'
      raise ConfigError('decay_at', list(self.decay_at), allowed)

  @property
  def evaluation_precision(self) -> str:
    """The type in which evaluations compute.

    It is not float16, in which a test's attack would be weaker, for its loss
    has no scale that a run has found.
    """
    is_float16 = self.precision == 'mixed_float16'
    return 'float32' if is_float16 else self.precision


@dataclasses.dataclass(frozen=True)
class NamedTestConfig(fields.Checked):
  """A named evaluation besides the plain one, kept in `evals/<name>.json`."""

  # Which images; docs/robustness.md has a table.
  kind: str = fields.field('split', choices=TEST_KINDS)
  # Where the set is: a folder or `tfds:<name>`. None: data.dir, and for
  # `corruptions` a folder of the run, which is made on the first use.
  dir: Optional[str] = fields.field(None)
  # The split of that set. None: data.eval_split; for ImageNet's variants the
  # folder of classes itself.
  split: Optional[str] = fields.field(None)
  # Images that the set, or each of its corruptions, must hold. None: the
  # published number, or any number where there is none.
  num_images: Optional[int] = fields.field(None, low=1)
  # Through whose norms the images pass: main, or an auxiliary domain.
  domain: str = fields.field(MAIN_DOMAIN)
  # Makes the images adversarial. None: they stay as they are.
  attack: Optional[EvalAttackConfig] = None
  # How often the attack is tried on each image, with other random numbers each
  # time. The worst outcome counts.
  restarts: int = fields.field(1, low=1, high=1000)
  # A second class that the images suggest: `texture` for the records' feature
  # image/texture/label. Adds the shape bias on images whose two classes differ.
  # Source: Geirhos et al., 2019.
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
      allowed = 'none with an attack: it is of images as they are'
      raise ConfigError('cue', self.cue, allowed)


@dataclasses.dataclass(frozen=True)
class EvalConfig(fields.Checked):
  """How a network is evaluated."""

  # Images of a step, over all replicas.
  batch_size: int = fields.field(1024, low=1)
  # Whether the averaged (`ema`) or the last (`raw`) weights are evaluated and
  # exported. Source: averaged in the official code.
  weights: str = fields.field('ema', choices=('ema', 'raw'))
  # Which checkpoint of a run is evaluated and exported: the newest, or the best
  # by train.keep_best.
  checkpoint: str = fields.field('newest', choices=('newest', 'best'))
  # What --mode=eval evaluates: a checkpoint, the folder of an exported version,
  # a TFLite, ONNX or .keras file, or `keras:<name>` for a
  # network of keras.applications. None: the newest checkpoint in model_dir.
  network: Optional[str] = fields.field(None)
  # Pixels that an ONNX or .keras file of others takes: `advprop` in [-1, 1],
  # `raw` in [0, 255], `unit` in [0, 1], `imagenet` in [0, 1] less ImageNet's
  # mean and over its deviation, `caffe` in BGR less the mean of [0, 255].
  pixels: Optional[str] = fields.field(
    None, choices=('advprop', 'raw', 'unit', 'imagenet', 'caffe')
  )
  # Named tests besides the plain evaluation; null takes one out of a recipe.
  tests: Mapping[str, NamedTestConfig] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ExportConfig(fields.Checked):
  """What is exported besides the SavedModel, and the test of all files."""

  # Variants of TFLite files, such as [float16,int8]; none for no file.
  tflite: tuple[str, ...] = fields.field(
    (), choices=('float32', 'float16', 'dynamic', 'int8')
  )
  # Whether an ONNX file is exported, too.
  onnx: bool = fields.field(False)
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
