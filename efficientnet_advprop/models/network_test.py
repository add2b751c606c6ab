import numpy as np
import pytest
import tensorflow as tf

from efficientnet_advprop import pretrained
from efficientnet_advprop.models import network as network_lib

_RNG = np.random.default_rng(0)
_NAMES = ('efficientnet-b0', 'efficientnet-lite0', 'resnet-18')
_SMALL = {'image_size': 16, 'width_coefficient': 0.125}


@pytest.mark.parametrize(
  'name', ['efficientnet-b0', 'efficientnet-lite0', 'resnet-18']
)
def test_every_layer_is_created_in_the_order_of_the_pass(name):
  """Checkpoints and fine-tuning go by it: the classifier is the last."""
  network = pretrained.build_model(name, 7, depth_coefficient=0.1, **_SMALL)
  *trunk, classifier = [*network._trunk(), network.classifier]
  ordered = [v.name for layer in trunk for v in layer.variables]
  found = [v.name for v in network.variables]
  assert sorted(found[:-2]) == sorted(ordered)
  assert found[-2:] == [v.name for v in classifier.variables]
  assert len(set(found)) == len(found) > 100


@pytest.mark.parametrize(
  'name', ['efficientnet-b0', 'efficientnet-lite0', 'resnet-18']
)
def test_logits_are_float32_of_every_domain(name):
  network = pretrained.build_model(
    name, 7, ('adversarial', 'strong'), depth_coefficient=0.1, **_SMALL
  )
  images = tf.random.stateless_uniform([2, 16, 16, 3], [0, 1], -1, 1)
  for domain in ('main', 'adversarial', 'strong'):
    logits = network(images, domain=domain)
    assert logits.shape == [2, 7] and logits.dtype == tf.float32
  with pytest.raises(ValueError, match='strange'):
    network(images, domain='strange')


def test_pixels_less_the_mean_of_imagenet():
  levels = _RNG.uniform(0, 255, (2, 3, 3, 3)).astype(np.float32)
  images = levels * 2 / 255 - 1
  assert network_lib.normalized_pixels(images, 'advprop') is images
  mean = np.array([123.675, 116.28, 103.53])  # As published, of 0-255 pixels.
  deviation = np.array([58.395, 57.12, 57.375])
  np.testing.assert_allclose(
    network_lib.normalized_pixels(images, 'imagenet'),
    (levels - mean) / deviation,
    atol=1e-5,
  )
  np.testing.assert_allclose(
    network_lib.normalized_pixels(images, 'lite'),
    (levels - 127) / 128,
    atol=1e-5,
  )


def test_drop_path_keeps_or_zeroes_whole_examples():
  x = _RNG.normal(size=(4, 3, 3, 2)).astype(np.float32)
  outputs = network_lib.drop_path(x, tf.constant([0.1, 0.79, 0.8, 0.99]), 0.8)
  np.testing.assert_allclose(outputs[:2], x[:2] / 0.8, rtol=1e-6)
  np.testing.assert_array_equal(outputs[2:], tf.zeros_like(x[2:]))


@pytest.fixture(name='network')
def _network():
  return pretrained.build_model('resnet-18', 7, **_SMALL)


_IMAGES = np.random.default_rng(0).uniform(-1, 1, (8, 16, 16, 3))
_IMAGES = _IMAGES.astype('float32')
_LABELS = np.arange(8) % 7


def _compile(network):
  network.compile(
    tf.keras.optimizers.SGD(0.1, momentum=0.9),
    tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
  )


def test_fit_trains_the_main_norms_alone_and_warns_of_nothing(network, caplog):
  _compile(network)
  before = {v.ref(): v.numpy() for v in network.variables}
  network.fit(_IMAGES, _LABELS, verbose=0)
  norm = network.stem.norm
  changed = {v.ref() for v in network.variables} - {
    v.ref() for v in network.variables if (v == before[v.ref()]).numpy().all()
  }
  assert {v.ref() for v in norm._trainable_weights} <= changed
  auxiliary = norm.norm_of('adversarial').variables
  assert not {v.ref() for v in auxiliary} & changed
  assert not caplog.records


@pytest.mark.parametrize('name', ['efficientnet-b0', 'resnet-18'])
def test_a_keras_file_holds_network_domains_and_optimizer(name, tmp_path):
  network = pretrained.build_model(
    name, 7, ('adversarial', 'strong'), depth_coefficient=0.1, **_SMALL
  )
  _compile(network)
  network.fit(_IMAGES, _LABELS, verbose=0)
  strong = network.stem.norm.norm_of('strong').beta
  strong.assign(strong + 1)
  path = str(tmp_path / 'network.keras')
  network.save(path)
  loaded = tf.keras.models.load_model(path)
  assert loaded.get_config() == network.get_config()
  for domain in ('main', 'adversarial', 'strong'):
    np.testing.assert_array_equal(
      loaded(_IMAGES, domain=domain), network(_IMAGES, domain=domain)
    )
  assert [v.name for v in loaded.variables] == [
    v.name for v in network.variables
  ]
  for mine, its in zip(network.optimizer.variables, loaded.optimizer.variables):
    np.testing.assert_array_equal(mine, its)
  assert len(network.optimizer.variables) == len(loaded.optimizer.variables)
