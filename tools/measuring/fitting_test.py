import pytest

from efficientnet_advprop.app import program
from tools import benchmark_fit
from tools.measuring import fitting

_SETTING = fitting.Setting(image_size=32, batch_size=2, rounds=2, steps=1)


def test_variants_take_turns_after_a_first_one_that_traces():
  turns = 'plain', 'vanilla', 'pgd1'
  order = []
  made = fitting.seconds(
    {name: lambda name=name: order.append(name) for name in turns}, 2
  )
  assert order == [*turns] * 3
  assert all(len(times) == 2 for times in made.values())


def test_images_fill_the_range_that_the_network_expects():
  for name, pixels in (('EfficientNetB0', (0, 255)), ('MobileNetV2', (-1, 1))):
    assert fitting.pixel_range(name) == pixels
    (batch,) = fitting.data(_SETTING, name)
    images = batch[0].numpy()
    assert images.shape == (2, 32, 32, 3)
    assert pixels[0] <= images.min() and images.max() <= pixels[1]
    assert images.max() - images.min() > 0.9 * (pixels[1] - pixels[0])


def test_an_unknown_network_is_refused(capsys):
  values, check = benchmark_fit._FLAGS, benchmark_fit._check
  try:
    with pytest.raises(SystemExit):
      program.parser('tool', values, check)(['tool', '--networks=MobilNetV2'])
  finally:
    values['networks'].unparse()
  assert 'did you mean MobileNetV2' in capsys.readouterr().err
