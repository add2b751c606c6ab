"""The section `train`: method, optimization, logs and checkpoints."""

from collections.abc import Mapping
import dataclasses
from typing import Optional

from efficientnet_advprop.base.errors import ConfigError
from efficientnet_advprop.config import fields
from efficientnet_advprop.config.attack import AttackConfig
from efficientnet_advprop.config.methods import METHODS

BEST_METRICS = ('top_1_accuracy', 'top_5_accuracy', 'loss')


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
