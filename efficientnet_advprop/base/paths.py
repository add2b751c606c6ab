"""Where recipes and the embedded data are, and how a run's files are named."""

import os

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# A wheel holds `hparams`, `testdata` and `tools` in the package's own folder
# `share`; in a checkout they are next to the package.
_SHARE = os.path.join(_PACKAGE, 'share')
_ROOT = _SHARE if os.path.isdir(_SHARE) else os.path.dirname(_PACKAGE)

# Names under a run's model_dir.
ATTACK_PICTURE = 'attack.png'
BEST = 'best'  # The best checkpoint (train.keep_best).
BEST_SCORES = 'best.json'  # The scores that it was chosen by.
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


def evaluated_checkpoint(model_dir: str, which: str) -> str:
  """Returns where the `newest` or the `best` checkpoint of a run is found."""
  return os.path.join(model_dir, BEST) if which == 'best' else model_dir


def embedded_data() -> str:
  """Returns the folder of the embedded data set."""
  return os.path.join(_ROOT, 'testdata')


def config_file(path: str) -> str:
  """Returns where a recipe is that the user names by its path.

  A path such as `hparams/demo.yaml` that does not exist from the current folder
  is one of this project's recipes, so that it means the same from anywhere.
  """
  shipped = os.path.join(_ROOT, path)
  if path.startswith('hparams/') and not os.path.exists(path):
    return shipped if os.path.exists(shipped) else path
  return path


def tools() -> dict[str, str]:
  """Returns the paths of the commands in tools/, by their names."""
  folder = os.path.join(_ROOT, 'tools')
  names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
  return {
    name[: -len('.py')]: os.path.join(folder, name)
    for name in names
    if name.endswith('.py') and not name.endswith('_test.py')
  }
