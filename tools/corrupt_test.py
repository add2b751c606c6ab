import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.base import paths
from efficientnet_advprop.evaluation import corruptions
from tools import corrupt

_DEMO = f'--config_file={paths.recipe("demo")}'
_FEW = '--num_images=4', '--num_workers=1'


class _Whitener:
  """Stands for the package `imagecorruptions`, which is an extra."""

  @staticmethod
  def corrupt(image, severity, **_):
    return np.full_like(image, 250 + severity)


@pytest.fixture(name='whitener', autouse=True)
def _whitener(monkeypatch):
  monkeypatch.setattr(corruptions, 'package', lambda: _Whitener)
  monkeypatch.setattr(corruptions, 'NAMES', ('fog', 'contrast'))
  monkeypatch.setattr(
    corruptions, 'strengths_for', lambda _: 'imagecorruptions'
  )


def _run(*arguments):
  """Returns the exit code."""
  corrupt._FLAGS.unparse_flags()
  try:
    corrupt.main(corrupt.parse_flags(['corrupt', *arguments]))
  except SystemExit as stopped:
    return stopped.code
  return 0


def test_the_set_is_as_the_flags_say(tmp_path, capsys):
  folder = tmp_path / 'set'
  size = '--params_override=model.image_size=40'
  assert _run(_DEMO, *_FEW, size, f'--output_dir={folder}') == 0
  assert capsys.readouterr().out == f'{folder}\n'
  paths = sorted(folder.glob('*/*'))
  assert len(paths) == 2 * len(corruptions.SEVERITIES)
  records = list(tf.data.TFRecordDataset(str(paths[-1])).as_numpy_iterator())
  assert len(records) == 4
  for record in records:
    feature = tf.train.Example.FromString(record).features.feature
    (encoded,) = feature['image/encoded'].bytes_list.value
    image = tf.io.decode_image(encoded).numpy()
    assert image.shape == (40, 40, 3) and (image == 255).all()
  # The seed belongs to the set.
  again = _DEMO, *_FEW, size, f'--output_dir={folder}'
  assert _run(*again) == 0
  assert _run(*again, '--seed=1') == 2
  (line,) = capsys.readouterr().err.splitlines()[-1:]
  assert line.startswith('corrupt: ') and 'seed is 0, not 1' in line


@pytest.mark.parametrize(
  'arguments, words',
  [
    ([_DEMO], 'output_dir'),
    ([_DEMO, '--num_images=0', '--output_dir=x'], 'num_images'),
    ([_DEMO, '--num_images=501', '--output_dir=x'], '1 to 500'),
    (['--config_file=none.yaml', '--output_dir=x'], 'none.yaml'),
    ([_DEMO, '--data_dir=/nowhere', '--output_dir=x'], '/nowhere'),
    ([_DEMO, *_FEW, '--output_dir=/dev/null/x'], '/dev/null'),
  ],
)
def test_wrong_use_ends_in_one_line(capsys, arguments, words):
  assert _run(*arguments) == 2
  line = capsys.readouterr().err.splitlines()[-1]
  assert line.startswith('corrupt: ') and words in line
