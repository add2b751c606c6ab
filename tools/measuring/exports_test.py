import pytest

from tools.measuring import exports


@pytest.mark.parametrize(
  'name, peer',
  [('efficientnet-b3', 'EfficientNetB3'), ('resnet-101', 'ResNet101')],
)
def test_the_peer_is_the_same_network(name, peer, monkeypatch):
  seen = []
  applications = exports.tf.keras.applications
  monkeypatch.setattr(applications, peer, lambda **_: seen.append(peer))
  exports.plain_network(name, 64)
  assert seen == [peer]


def test_sizes_of_folders_are_those_of_their_files(tmp_path):
  (tmp_path / 'a').mkdir()
  (tmp_path / 'a' / 'x').write_bytes(b' ' * 2**20)
  (tmp_path / 'y').write_bytes(b' ' * 2**19)
  assert exports.file_size(str(tmp_path)) == 1.5


@pytest.mark.slow
def test_every_file_is_measured(capsys):
  figures = exports.measure('efficientnet-b0', 32, 1, 10)
  for name in ('saved_model', 'tflite_float32', 'tflite_int8'):
    for key in ('mib', *exports.BATCH_SIZES):
      assert figures[f'{name}_{key}'] > 0
  assert figures['plain_1'] == figures['plain_32'] == 1
  sizes = [figures[f'tflite_{v}_mib'] for v in ('float32', 'float16', 'int8')]
  assert sizes == sorted(sizes, reverse=True)
  assert 'batch 32' in capsys.readouterr().out
