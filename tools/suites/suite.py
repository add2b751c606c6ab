"""A suite of runs as data: cells, seeds and the claims that they decide.

A suite is a YAML file:

  name: cifar10
  splits:                       # images taken of each; null takes all
    train: 5000
    validation: 10000
    held_out: {of: train, images: 5000}  # of those that no split above takes
  corrupted_images: 300         # of data.eval_split, in 75 corruptions; 0: none
  run: {...}                    # a recipe, shared by all cells
  stages:                       # one after another
  - seeds: 2
    choose: true                # the best cell's `train` holds from here on
    cells:
      slow: {train: {learning_rate: 0.1}, data: {eval_split: held_out}}
      fast: {train: {learning_rate: 0.2}, data: {eval_split: held_out}}
  - seeds: 5                    # seed by seed over the cells
    cells: {advprop: {train: {method: advprop}}}  # changes to the recipe
  claims:
  - {claim: AdvProp beats vanilla, is_positive: advprop.clean - vanilla.clean}

Each cell measures `clean`, the plain evaluation, and every entry of its
`eval.tests`, all as top-1 accuracy in percent. A claim is a sum of measures,
`<cell>.<measure>`, that is positive if the claim holds. Claims with
`primary: true` share one error rate (Holm's method).

A stage with `choose` picks the cell whose mean `clean` over the seeds is the
highest, the first of them if two are equal. Later stages wait for its lines.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import hashlib
import json
import re
import statistics
from typing import Any, NamedTuple, Optional

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.config import fields
from efficientnet_advprop.config import recipes

PLAIN_TEST = 'clean'
LETTER = re.compile(r'([a-z])\. ')  # In front of a claim: `a. It holds`.
_KEYS = ('name', 'splits', 'corrupted_images', 'run', 'stages', 'claims')
_STAGE_KEYS = ('seeds', 'choose', 'cells')
_CLAIM_KEYS = ('claim', 'is_positive', 'primary')

Line = Mapping[str, Any]  # The result of a run, as it stands in a file.


class Part(NamedTuple):
  """Images that a suite takes."""

  source: str  # The split of the data that they are taken from.
  images: Optional[int]  # None takes all that are left.


class Term(NamedTuple):
  """A signed measure of a claim."""

  sign: int
  cell: str
  measure: str


class Claim(NamedTuple):
  """A sentence, and the sum that is positive if it holds."""

  text: str
  expression: str
  terms: tuple[Term, ...]
  is_primary: bool = False


class Run(NamedTuple):
  """One cell with one seed."""

  cell: str
  seed: int
  config: config_lib.Config
  digest: str  # Of the settings; a result of other settings does not count.


@dataclasses.dataclass(frozen=True)
class Suite:
  """What a suite is; see this module's description.

  Attributes:
    name: of the report.
    splits: which images are taken for each split, in the order of taking.
    corrupted_images: how many test images are corrupted.
    config: the recipe that the cells share.
    runs: in the order in which they are to be made.
    claims: in the order in which they are reported.
    chosen: the cell that each stage with `choose` has picked.
    waiting: how many runs of later stages wait for a choice; they are not among
      `runs`.
  """

  name: str
  splits: dict[str, Part]
  corrupted_images: int
  config: config_lib.Config
  runs: tuple[Run, ...]
  claims: tuple[Claim, ...]
  chosen: tuple[str, ...] = ()
  waiting: int = 0

  @property
  def cells(self) -> tuple[str, ...]:
    """The names of the cells, in the order of the file."""
    return tuple(dict.fromkeys(run.cell for run in self.runs))


def load(path: str, lines: Iterable[Line] = ()) -> Suite:
  """Reads a suite.

  Args:
    path: of the YAML file.
    lines: results that are there, on which choices depend.

  Raises:
    ConfigError: a key or value is not allowed; one line says which.
  """
  values = recipes.read_yaml(path)
  for key in values:
    fields.check_choice('suite', key, _KEYS)
  for key in _KEYS:
    if key not in values:
      raise config_lib.ConfigError(key, None, f'a value in {path}')
  recipe = values['run']
  found = {(line['cell'], line['seed'], line['digest']): line for line in lines}
  # Before any choice, for the names of the cells and of their measures.
  cells: dict[str, config_lib.Config] = {}
  runs: list[Run] = []
  chosen: list[str] = []
  waiting = 0
  is_open = False  # Whether a choice is still to be made.
  for stage in values['stages']:
    for key in stage:
      fields.check_choice('stages', key, _STAGE_KEYS)
    stage_runs = _runs(recipe, stage)
    cells.update((run.cell, run.config) for run in stage_runs)
    if is_open:
      waiting += len(stage_runs)
      continue
    runs += stage_runs
    if stage.get('choose'):
      best = _choose(stage_runs, found)
      if best is None:
        is_open = True
      else:
        chosen.append(best)
        changes = (stage['cells'][best] or {}).get('train', {})
        recipe = recipes.merge(recipe, {'train': changes})
  return Suite(
    values['name'],
    {name: _part(name, part) for name, part in values['splits'].items()},
    values['corrupted_images'],
    config_lib.from_dict(values['run']),
    tuple(runs),
    tuple(_claim(claim, cells) for claim in values['claims']),
    tuple(chosen),
    waiting,
  )


def _part(name: str, value: Any) -> Part:
  if not isinstance(value, Mapping):
    return Part(name, value)
  for key in value:
    fields.check_choice(f'splits.{name}', key, ('of', 'images'))
  return Part(value['of'], value['images'])


def _runs(recipe: dict, stage: Mapping[str, Any]) -> list[Run]:
  runs = []
  for seed in range(stage['seeds']):
    for cell, changes in stage['cells'].items():
      try:
        values = recipes.merge(recipe, changes or {})
        values = recipes.merge(values, {'train': {'seed': seed}})
        config = config_lib.from_dict(values)
      except config_lib.ConfigError as error:
        raise error.under(cell) from None
      runs.append(Run(cell, seed, config, _digest(values)))
  return runs


def _choose(
  runs: Iterable[Run], lines: Mapping[tuple[str, int, str], Line]
) -> Optional[str]:
  """The best of a stage's cells; None while a line is missing."""
  scores: dict[str, list[float]] = {}
  for run in runs:
    line = lines.get((run.cell, run.seed, run.digest))
    if line is None:
      return None
    scores.setdefault(run.cell, []).append(line['accuracies'][PLAIN_TEST])
  return max(scores, key=lambda cell: statistics.mean(scores[cell]))


def _claim(
  claim: Mapping[str, Any], cells: Mapping[str, config_lib.Config]
) -> Claim:
  for key in claim:
    fields.check_choice('claims', key, _CLAIM_KEYS)
  expression = claim['is_positive']
  return Claim(
    claim['claim'],
    expression,
    _terms(expression, cells),
    bool(claim.get('primary', False)),
  )


def _digest(values: dict) -> str:
  # Of what the suite states, so that a new setting outdates no result.
  text = json.dumps(values, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def _terms(
  expression: str, cells: Mapping[str, config_lib.Config]
) -> tuple[Term, ...]:
  """Parses `a.x - b.y + c.z`."""
  terms = []
  pattern = r'\s*([+-]?)\s*([\w-]+)\.(\w+)'
  if not re.fullmatch(f'({pattern})+\\s*', expression):
    raise config_lib.ConfigError(
      'is_positive', expression, 'a sum of <cell>.<measure>'
    )
  for sign, cell, measure in re.findall(pattern, expression):
    fields.check_choice('is_positive', cell, cells)
    measures = (PLAIN_TEST, *cells[cell].eval.tests)
    fields.check_choice(f'is_positive: {cell}', measure, measures)
    terms.append(Term(-1 if sign == '-' else 1, cell, measure))
  return tuple(terms)
