import pytest
import tensorflow as tf

from efficientnet_advprop import config
from efficientnet_advprop.models import efficientnet
from efficientnet_advprop.models import factory
from efficientnet_advprop.models import resnet


@pytest.mark.parametrize(
  'name, kind',
  [
    ('efficientnet-b0', efficientnet.EfficientNet),
    ('efficientnet-lite0', efficientnet.EfficientNet),
    ('resnet-50', resnet.ResNet),
  ],
)
def test_a_network_has_every_variable_before_its_first_call(name, kind):
  """Checkpoints are restored, and averages made, before it is called."""
  settings = config.ModelConfig(
    name=name, image_size=16, width_coefficient=0.125, depth_coefficient=0.1
  )
  network = factory.create_model(settings, 7, ('adversarial', 'strong'))
  assert type(network) is kind
  before = [v.ref() for v in network.variables]
  for domain in ('main', 'adversarial', 'strong'):
    assert network(tf.zeros([2, 16, 16, 3]), domain=domain).shape == [2, 7]
  assert [v.ref() for v in network.variables] == before


def test_a_network_without_auxiliary_domains_is_a_plain_one():
  settings = config.ModelConfig(
    name='resnet-18', image_size=16, width_coefficient=0.125
  )
  plain = factory.create_model(settings, 7, ())
  shared = factory.create_model(settings, 7)
  assert plain.stem.norm.norm_of('main')
  # Of each norm: scale, offset and the two moving statistics.
  norms = sum('gamma' in v.name for v in plain.variables)
  assert len(shared.variables) - len(plain.variables) == 4 * norms > 0
