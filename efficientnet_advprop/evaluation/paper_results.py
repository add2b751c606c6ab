"""The results that the paper states, of hparams/paper.yaml."""

from typing import NamedTuple, Optional

import yaml

from efficientnet_advprop.base import paths


class Result(NamedTuple):
  """A number of the paper; `published` is None where a figure has none."""

  table: str
  title: str
  row: str
  column: str  # The network.
  published: Optional[float]  # Top-1 accuracy or mCE, in percent.
  recipe: str  # hparams/imagenet/<recipe>.yaml
  test: str  # 'main', or one of eval.tests.


def results() -> list[Result]:
  """Every result of the paper, in its order."""
  with open(paths.recipe('paper'), encoding='utf-8') as file:
    content = yaml.safe_load(file)
  found = []
  for table in content:
    for row in table['rows']:
      for column, number in zip(table['columns'], row['numbers']):
        found.append(
          Result(
            table['table'],
            table['title'],
            row['row'],
            column,
            number,
            row['recipe'].format(column=column),
            row['test'],
          )
        )
  return found
