"""Kills training runs at random moments and compares what they end with.

  .venv/bin/python tools/soak.py --kills=20

Runs a small network on the embedded data set, once without interruption, then
again and again with kills: by SIGKILL while it starts, trains or saves, and by
SIGTERM. A killed run is started again with the same command. It must end with
the bits of the uninterrupted run: the weights, every domain's
statistics, the optimizer and the average in the last checkpoint, and
metrics.jsonl, whose speeds are left out.

With --processes=2 one of the workers is killed; the others are ended, as a
cluster's manager would, and all are started again.

With several replicas or processes the uninterrupted run is also compared with
that of one device. The global batches are the same and the order of sums is
not. The difference grows with the steps: measure it after few, without kills:

  .venv/bin/python tools/soak.py --kills=0 --steps=6 --replicas=2

Ends in one line of JSON: `tried` kills, and the number of them in runs that
ended `equal`; `loss_difference` and `state_difference` from one device, the
largest of a loss, relative, and of a variable, relative to its largest value or
0.1. The exit code is 1 if `tried` and `equal` differ.
"""

from collections.abc import Sequence
import json
import os
from pathlib import Path
import shutil
import sys
import tempfile

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop.app import program
from tools.measuring import soaking

_FLAGS = program.flag_values(__name__)
for _name, _default, _least, _help in (
  ('kills', 20, 0, 'Number of kills in all.'),
  ('kills_per_run', 5, 1, 'Largest number of kills of one run.'),
  ('replicas', 1, 1, 'Replicas in a process.'),
  ('processes', 1, 1, 'Workers.'),
  ('steps', 40, 4, 'Steps of a run.'),
  ('seed', 0, None, 'Decides on the moments of the kills.'),
):
  flags.DEFINE_integer(_name, _default, _help, _least, flag_values=_FLAGS)
_WORKER_DIR = flags.DEFINE_string(
  'worker_dir', None, 'Internal: train here, as a worker.', flag_values=_FLAGS
)


def main(_: Sequence[str]) -> int:
  """Runs the soak test, or one of its workers; returns the exit code."""
  layout = soaking.Layout(_FLAGS.replicas, _FLAGS.processes, _FLAGS.steps)
  if _WORKER_DIR.value:
    return soaking.work(layout, _WORKER_DIR.value)
  folder = Path(tempfile.mkdtemp(prefix='soak_'))
  command = [sys.executable, os.path.abspath(__file__)]
  soak = soaking.Soak(command, layout, folder, _FLAGS.seed)
  result = soak.run(_FLAGS.kills, _FLAGS.kills_per_run)
  print(json.dumps({**result, 'seed': _FLAGS.seed}))
  if result['tried'] != result['equal']:
    print(f'the runs that differ are in {folder}', file=sys.stderr)
    return 1
  shutil.rmtree(folder)
  return 0


if __name__ == '__main__':
  program.run('soak', main, _FLAGS)
