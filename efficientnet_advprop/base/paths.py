"""Where recipes and the embedded data are, and how a run's files are named."""

import os

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# The folder of `hparams` and `testdata`.
_ROOT = os.path.dirname(_PACKAGE)

# Names under a run's model_dir.
ATTACK_PICTURE = 'attack.png'
CHECKPOINTS = 'checkpoints'
CONFIG = 'config.yaml'  # Every setting; feeding it back repeats the run.
EVALUATION = 'eval.json'  # The last plain evaluation.
EVALUATIONS = 'evals'  # A folder of named evaluations and their report.
EXPORT = 'export'
LAYOUT = 'layout.json'  # The number of replicas with which the run began.
METRICS = 'metrics.jsonl'  # A line for each log interval.
SUMMARIES = 'summaries'  # For TensorBoard.


def recipe(name: str) -> str:
  """Returns the path of a recipe in hparams/, by its name without `.yaml`."""
  return os.path.join(_ROOT, 'hparams', *f'{name}.yaml'.split('/'))


def embedded_data() -> str:
  """Returns the folder of the embedded data set."""
  return os.path.join(_ROOT, 'testdata')
