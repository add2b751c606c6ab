"""Every published family gives the logits that its own code gives.

The golden values come from timm, efficientnet-pytorch and
efficientnet-lite-pytorch, whose networks were filled by `_value` and called
with `_images`. The digests are those of the names and shapes of their state
dicts, so that no name can be mistaken even where two shapes agree.
"""

import hashlib
import json
import math
import os
import zlib

import numpy as np
import pytest

from efficientnet_advprop import pretrained
from efficientnet_advprop import testing
from efficientnet_advprop.weights import loading
from efficientnet_advprop.weights import names
from efficientnet_advprop.weights import readers
from efficientnet_advprop.weights import transfer

_GOLDEN = os.path.join(
  os.path.dirname(testing.__file__), 'published_networks.json'
)
with open(_GOLDEN, encoding='utf-8') as _file:
  _PUBLISHED = json.load(_file)
_TITLES = {
  'timm': ("weights of timm's EfficientNets", 'weights of a ResNet of'),
  'efficientnet-pytorch': ('weights of efficientnet-pytorch',),
}
# Networks of which several tests are quick enough.
_QUICK = ('efficientnet-b0', 'efficientnet-lite0', 'efficientnet-lite1')
_QUICK += ('resnet-18', 'resnet-50')


def _value(name, shape):
  """What the published network held under this name."""
  numbers = np.random.default_rng(zlib.crc32(name.encode())).random(shape)
  if name.endswith('running_var'):
    numbers += 0.5
  elif len(shape) == 1 and name.endswith('.weight'):
    numbers = 0.2 + 0.6 * numbers
  elif len(shape) == 1:
    numbers = (numbers - 0.5) * 0.2
  else:
    numbers = (2 * numbers - 1) * math.sqrt(6 / math.prod(shape[1:]))
  return numbers.astype(np.float32)


def _images():
  numbers = np.random.default_rng(0).random((2, 64, 64, 3))
  return numbers.astype(np.float32) * 2 - 1


def _naming(model, package):
  family = model.model_config.architecture.family
  return next(
    naming
    for naming in names.NAMINGS
    if naming.title.startswith(_TITLES[package]) and naming.family == family
  )


def _shapes(model, naming):
  """The shapes of a network's variables as PyTorch has them."""
  variables = loading.variables_by_place(model)
  shapes = {}
  for name, part in naming.table(model).items():
    shape = list(variables[part.place].shape)
    if part.axes is not None:
      shape = [shape[part.axes.index(axis)] for axis in range(len(shape))]
    shapes[name] = shape
  return shapes


def _digest(shapes):
  text = '\n'.join(f'{name} {shape}' for name, shape in sorted(shapes.items()))
  return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
  'name, package',
  [
    pytest.param(
      name, package, marks=[] if name in _QUICK else pytest.mark.slow
    )
    for name, digests in _PUBLISHED['names'].items()
    for package in digests
  ],
)
def test_names_and_shapes_are_the_published_ones(name, package):
  model = pretrained.build_model(name, 1000, ())
  shapes = _shapes(model, _naming(model, package))
  assert _digest(shapes) == _PUBLISHED['names'][name][package]
  assert len(shapes) == len(model.variables)


@pytest.mark.parametrize(
  'case',
  [
    pytest.param(
      case, marks=[] if case.split('/')[0] in _QUICK else pytest.mark.slow
    )
    for case in _PUBLISHED['logits']
  ],
)
def test_the_logits_are_the_published_network_s(case):
  name, package = case.split('/')
  model = pretrained.build_model(
    name, 1000, (), image_size=64, normalization='advprop'
  )
  naming = _naming(model, package)
  values = {n: _value(n, s) for n, s in _shapes(model, naming).items()}
  assert names.find(values) is naming
  transfer.initialize(
    model, readers.Weights('golden', naming, values, values, None)
  )
  logits = model(_images()).numpy()
  expected = np.array(_PUBLISHED['logits'][case])
  scale = np.abs(expected).max()
  np.testing.assert_allclose(
    logits[:, : expected.shape[1]] / scale, expected / scale, rtol=0, atol=1e-5
  )
