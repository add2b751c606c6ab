import pytest

from efficientnet_advprop import config
from efficientnet_advprop.models import scaling

# Of the seven stages, from the official `BlockArgs`.
_FILTERS = (16, 24, 40, 80, 112, 192, 320)


def test_the_stages_of_b7_are_the_published_ones():
  b7 = config.ModelConfig(name='efficientnet-b7')
  assert [
    scaling.round_filters(filters, b7.width_coefficient)
    for filters in (32, *_FILTERS, 1280)
  ] == [64, 32, 48, 80, 160, 224, 384, 640, 2560]
  assert scaling.stage_repeats(b7) == [4, 7, 7, 10, 10, 13, 4]


@pytest.mark.parametrize('width', [0.125, 0.35, 0.5, 1.1, 1.2, 1.4, 1.6, 1.8])
def test_filters_are_a_multiple_of_8_and_never_a_tenth_too_few(width):
  for filters in (32, *_FILTERS, 1280):
    found = scaling.round_filters(filters, width)
    assert found % 8 == 0 and found >= 8
    assert found >= 0.9 * filters * width
    if found > 8:  # Else no smaller multiple is there.
      assert found - 8 < filters * width


def test_a_lite_keeps_its_first_and_last_stage():
  lite4 = config.ModelConfig(name='efficientnet-lite4')
  assert lite4.depth_coefficient == 1.8
  assert scaling.stage_repeats(lite4) == [1, 4, 4, 6, 6, 8, 1]


def test_a_stage_has_a_block_at_least():
  for name in ('efficientnet-b0', 'resnet-50'):
    tiny = config.ModelConfig(name=name, depth_coefficient=0.1)
    assert set(scaling.stage_repeats(tiny)) == {1}
