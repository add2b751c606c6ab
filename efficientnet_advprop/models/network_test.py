import pytest
import tensorflow as tf

from efficientnet_advprop.models import factory

_SMALL = {'image_size': 16, 'width_coefficient': 0.125}


@pytest.mark.parametrize('name', ['efficientnet-b0', 'resnet-18'])
def test_every_layer_is_created_in_the_order_of_the_pass(name):
  """Checkpoints and fine-tuning go by it: the classifier is the last."""
  network = factory.build_model(name, 7, depth_coefficient=0.1, **_SMALL)
  *trunk, classifier = [*network._trunk(), network.classifier]
  ordered = [v.name for layer in trunk for v in layer.variables]
  found = [v.name for v in network.variables]
  assert sorted(found[:-2]) == sorted(ordered)
  assert found[-2:] == [v.name for v in classifier.variables]
  assert len(set(found)) == len(found) > 100


@pytest.mark.parametrize('name', ['efficientnet-b0', 'resnet-18'])
def test_logits_are_float32_of_every_domain(name):
  network = factory.build_model(
    name, 7, ('adversarial', 'strong'), depth_coefficient=0.1, **_SMALL
  )
  images = tf.random.stateless_uniform([2, 16, 16, 3], [0, 1], -1, 1)
  for domain in ('main', 'adversarial', 'strong'):
    logits = network(images, domain=domain)
    assert logits.shape == [2, 7] and logits.dtype == tf.float32
  with pytest.raises(ValueError, match='strange'):
    network(images, domain='strange')
