import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop.app import program
from efficientnet_advprop.base import errors
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
  corrupt._FLAGS.unparse_flags()
  for name in corrupt._FLAGS:
    corrupt._FLAGS[name].unparse()
  parse = program.parser('corrupt', corrupt._FLAGS)
  corrupt.main(parse(['corrupt', *arguments]))


def test_the_set_is_as_the_flags_say(tmp_path, capsys):
  folder = tmp_path / 'set'
  size = '--params_override=model.image_size=40'
  _run(_DEMO, *_FEW, size, f'--output_dir={folder}')
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
  _run(*again)
  with pytest.raises(errors.UserError, match='seed is 0, not 1'):
    _run(*again, '--seed=1')


@pytest.mark.parametrize(
  'arguments, words',
  [
    ([_DEMO, '--num_images=501', '--output_dir=x'], '1 to 500'),
    (['--config_file=none.yaml', '--output_dir=x'], r'none\.yaml'),
    ([_DEMO, '--data_dir=/nowhere', '--output_dir=x'], '/nowhere'),
    ([_DEMO, *_FEW, '--output_dir=/dev/null/x'], '/dev/null'),
  ],
)
def test_wrong_use_is_named(arguments, words):
  with pytest.raises((errors.UserError, OSError), match=words):
    _run(*arguments)


@pytest.mark.parametrize(
  'arguments, words',
  [
    ([_DEMO], 'output_dir'),
    ([_DEMO, '--num_images=0', '--output_dir=x'], 'num_images'),
  ],
)
def test_a_wrong_flag_ends_in_one_line(capsys, arguments, words):
  with pytest.raises(SystemExit) as stopped:
    _run(*arguments)
  (line,) = capsys.readouterr().err.splitlines()
  assert stopped.value.code == 2
  assert line.startswith('corrupt: ') and words in line
