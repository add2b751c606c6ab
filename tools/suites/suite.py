"""A suite of runs as data: cells, seeds and the claims that they decide.

A suite is a YAML file:

  name: cifar10
  splits: {train: 5000, validation: 10000}  # images taken; null is all
  corrupted_images: 300                     # of validation, in 75 corruptions
  run: {...}                                # a recipe, shared by all cells
  stages:                                   # one after another
  - seeds: 5                                # seed by seed over the cells
    cells: {advprop: {train: {method: advprop}}}  # changes to the recipe
  claims:
  - {claim: AdvProp beats vanilla, is_positive: advprop.clean - vanilla.clean}

Each cell measures `clean`, the plain evaluation, and every entry of its
`eval.tests`, all as top-1 accuracy in percent. A claim is a sum of measures,
`<cell>.<measure>`, that is positive if the claim holds.
"""

import dataclasses
import hashlib
import json
import re
from typing import Any, NamedTuple, Optional

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.config import fields
from efficientnet_advprop.config import recipes

PLAIN_TEST = 'clean'
_KEYS = ('name', 'splits', 'corrupted_images', 'run', 'stages', 'claims')


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
    splits: how many images are taken of each split, None for all.
    corrupted_images: how many test images are corrupted.
    runs: in the order in which they are to be made.
    claims: in the order in which they are reported.
  """

  name: str
  splits: dict[str, Optional[int]]
  corrupted_images: int
  runs: tuple[Run, ...]
  claims: tuple[Claim, ...]

  @property
  def cells(self) -> tuple[str, ...]:
    """The names of the cells, in the order of the file."""
    return tuple(dict.fromkeys(run.cell for run in self.runs))


def load(path: str) -> Suite:
  """Reads a suite.

  Raises:
    ConfigError: a key or value is not allowed; one line says which.
  """
  values = recipes.read_yaml(path)
  for key in values:
    fields.check_choice('suite', key, _KEYS)
  for key in _KEYS:
    if key not in values:
      raise config_lib.ConfigError(key, None, f'a value in {path}')
  runs = _runs(values['run'], values['stages'])
  cells = {run.cell: run.config for run in runs}
  claims = tuple(
    Claim(
      claim['claim'],
      claim['is_positive'],
      _terms(claim['is_positive'], cells),
    )
    for claim in values['claims']
  )
  splits = dict(values['splits'])
  return Suite(values['name'], splits, values['corrupted_images'], runs, claims)


def _runs(recipe: dict, stages: Any) -> tuple[Run, ...]:
  runs = []
  for stage in stages:
    for seed in range(stage['seeds']):
      for cell, changes in stage['cells'].items():
        try:
          values = recipes.merge(recipe, changes or {})
          values = recipes.merge(values, {'train': {'seed': seed}})
          config = config_lib.from_dict(values)
        except config_lib.ConfigError as error:
          raise error.under(cell) from None
        runs.append(Run(cell, seed, config, _digest(values)))
  return tuple(runs)


def _digest(values: dict) -> str:
  # Of what the suite states, so that a new setting outdates no result.
  text = json.dumps(values, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def _terms(
  expression: str, cells: dict[str, config_lib.Config]
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
