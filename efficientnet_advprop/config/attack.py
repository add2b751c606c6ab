"""The section `attack`, and the attacks of evaluations."""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any, ClassVar

from efficientnet_advprop.base.errors import ConfigError
from efficientnet_advprop.config import fields


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
