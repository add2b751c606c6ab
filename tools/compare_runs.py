r"""Writes one report that compares the tests of several runs.

  .venv/bin/python tools/compare_runs.py \
      --model_dirs=vanilla,advprop --output_dir=both

The results are those of `--mode=eval` of main.py in each run;
docs/robustness.md shows more.
"""

from collections.abc import Sequence
import json
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop.app import program
from efficientnet_advprop.app import settings
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import paths
from efficientnet_advprop.evaluation import report

_FLAGS = program.flag_values(__name__)
_MODEL_DIRS = flags.DEFINE_list(
  'model_dirs', [], 'Folders of runs, separated by commas.', flag_values=_FLAGS
)
_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir', None, 'Folder for the report and the plots.', flag_values=_FLAGS
)


def read_run(model_dir: str) -> report.Run:
  """Reads the results in a run's folder.

  Raises:
    ConfigError: it holds no run.
    DataError: it has not been evaluated, or a result is damaged.
  """
  config = settings.resolve_config(
    config_file=os.path.join(model_dir, paths.CONFIG)
  )
  evals = os.path.join(model_dir, paths.EVALUATIONS)
  files = {report.PLAIN: os.path.join(model_dir, paths.EVALUATION)}
  for name in sorted(os.listdir(evals) if os.path.isdir(evals) else []):
    start, extension = os.path.splitext(name)
    if extension == '.json' and not start.endswith('.part'):
      files[start] = os.path.join(evals, name)
  results = {}
  for name, path in files.items():
    try:
      with open(path, encoding='utf-8') as file:
        results[name] = json.load(file)
    except FileNotFoundError:
      allowed = 'evaluate the run first, with --mode=eval of main.py'
      raise errors.DataError(f'{path}: missing; {allowed}') from None
    except ValueError:
      raise errors.DataError(f'{path}: not JSON; evaluate again') from None
  name = os.path.basename(os.path.abspath(model_dir))
  return report.Run(name, config, results)


def _check(values: flags.FlagValues) -> None:
  for name in ('model_dirs', 'output_dir'):
    if not getattr(values, name):
      raise flags.Error(f'--{name} is needed')


def main(_: Sequence[str]) -> None:
  """Writes the report, and prints its path."""
  runs = [read_run(path) for path in _MODEL_DIRS.value or []]
  print(report.write(runs, str(_OUTPUT_DIR.value)))


if __name__ == '__main__':
  program.run('compare_runs', main, _FLAGS, _check)
