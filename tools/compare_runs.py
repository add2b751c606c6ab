r"""Writes one report on the tests of several runs side by side.

  .venv/bin/python tools/compare_runs.py \
      --model_dirs=vanilla,advprop --output_dir=both

reads what `--mode=eval` of main.py found in each run; docs/robustness.md shows
more.
"""

from collections.abc import Sequence
import json
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import app
from absl import flags

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import program
from efficientnet_advprop.app import settings
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import paths
from efficientnet_advprop.evaluation import report

_FLAGS = program.flag_values(__name__)
_MODEL_DIRS = flags.DEFINE_list(
  'model_dirs', [], 'The runs, as --model_dir of main.py.', flag_values=_FLAGS
)
_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir', None, 'Where the report and plots go.', flag_values=_FLAGS
)


def read_run(model_dir: str) -> report.Run:
  """The results that lie in a run's folder.

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


def main(_: Sequence[str]) -> None:
  """Writes the report; an error ends in one line and exit code 2."""
  try:
    model_dirs, output_dir = _MODEL_DIRS.value, _OUTPUT_DIR.value
    if not model_dirs:
      raise config_lib.ConfigError('model_dirs', model_dirs, 'folders of runs')
    if not output_dir:
      raise config_lib.ConfigError('output_dir', output_dir, 'a folder')
    print(report.write([read_run(path) for path in model_dirs], output_dir))
  except (errors.UserError, OSError) as error:
    program.fail('compare_runs', error)


parse_flags = program.parser('compare_runs', _FLAGS)


if __name__ == '__main__':
  app.run(main, flags_parser=parse_flags)
