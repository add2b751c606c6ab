import json

import pytest

from tools import benchmark_fit


@pytest.fixture(name='flags', autouse=True)
def _flags(monkeypatch):
  settings = dict(
    networks='MobileNetV2',
    image_size=32,
    batch_size=2,
    rounds=2,
    steps=1,
    attack_steps=None,
  )
  flags = type('Flags', (), settings)
  monkeypatch.setattr(benchmark_fit, 'FLAGS', flags)
  return flags


def test_the_last_line_is_json(monkeypatch, capsys):
  found = {'vanilla_MobileNetV2': 1.0}
  monkeypatch.setattr(benchmark_fit, 'ratios', lambda name: dict(found))
  monkeypatch.setattr(benchmark_fit, 'memory_ratio', lambda name: 1.5)
  benchmark_fit.main(['benchmark_fit'])
  last = capsys.readouterr().out.splitlines()[-1]
  assert json.loads(last) == {**found, 'memory_MobileNetV2': 1.5}


def test_variants_take_turns_after_a_first_one_that_traces():
  turns = 'plain', 'vanilla', 'pgd1'
  order = []
  made = benchmark_fit.seconds(
    {name: lambda name=name: order.append(name) for name in turns}
  )
  assert order == [*turns] * 3
  assert all(len(times) == 2 for times in made.values())


def test_images_fill_the_range_that_the_network_expects(flags):
  for name, pixels in (('EfficientNetB0', (0, 255)), ('MobileNetV2', (-1, 1))):
    assert benchmark_fit.pixel_range(name) == pixels
    (batch,) = benchmark_fit.data(name)
    images = batch[0].numpy()
    assert images.shape == (2, 32, 32, 3)
    assert pixels[0] <= images.min() and images.max() <= pixels[1]
    assert images.max() - images.min() > 0.9 * (pixels[1] - pixels[0])


def test_an_unknown_network_is_refused(flags):
  flags.networks = 'MobilNetV2'
  with pytest.raises(ValueError, match='did you mean MobileNetV2'):
    benchmark_fit._check(flags)
