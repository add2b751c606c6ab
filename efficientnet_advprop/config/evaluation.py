"""The sections `eval` and `export`: tests, and files for serving."""

from collections.abc import Mapping
import dataclasses
from typing import Optional

from efficientnet_advprop.base.errors import ConfigError
from efficientnet_advprop.config import fields
from efficientnet_advprop.config.attack import EvalAttackConfig
from efficientnet_advprop.config.methods import MAIN_DOMAIN

# Sets of test images that are not a split like any other: ImageNet's variants,
# and the 15 corruptions in 5 severities of any data set.
IMAGENET_SETS = (
  *('imagenet_c', 'imagenet_a', 'imagenet_r', 'imagenet_v2'),
  *('imagenet_sketch', 'stylized_imagenet'),
)
TEST_KINDS = ('split', 'corruptions', *IMAGENET_SETS)


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
  # Pixels that an ONNX or .keras file from elsewhere takes: `advprop` in
  # [-1, 1], `raw` in [0, 255], `unit` in [0, 1], `imagenet` in [0, 1] less
  # ImageNet's mean and over its deviation, `caffe` in BGR less the mean of
  # [0, 255].
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
