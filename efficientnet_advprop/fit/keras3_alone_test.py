"""The package in a process that has Keras 3 and no tf-keras."""

from importlib import metadata
import os
import subprocess
import sys

import pytest

_SCRIPT = """
import sys
sys.modules['tf_keras'] = None  # As if it were not installed.
import efficientnet_advprop as advprop
import numpy as np
import tensorflow as tf
keras = tf.keras
assert keras.__version__.startswith('3.'), keras.__version__
for name in advprop.__all__:
  assert getattr(advprop, name) is not None

network = keras.Sequential([
    keras.Input((8, 8, 3)),
    keras.layers.Conv2D(4, 3),
    keras.layers.BatchNormalization(),
    keras.layers.GlobalAveragePooling2D(),
    keras.layers.Dense(5)])
model = advprop.AdvPropModel(
    network, advprop.AttackConfig(epsilon=4), pixel_range=(0, 255))
assert len(model.adversarial_norms) == 1
model.compile(
    'sgd', keras.losses.SparseCategoricalCrossentropy(from_logits=True))
images = np.random.uniform(0, 255, [4, 8, 8, 3]).astype('float32')
found = model.attack(images, np.arange(4)) - images
assert 3.9 < np.abs(found).max() < 4.001
model.fit(images, np.arange(4), verbose=0)

try:
  advprop.build_model('efficientnet-b0')
except Exception as error:
  print(f'{type(error).__name__}: {error}')
"""


@pytest.mark.skipif(
  metadata.version('keras') < '3', reason='Keras 3 is not installed'
)
def test_conversion_and_attack_work_and_our_networks_say_what_they_need():
  name = 'TF_USE_LEGACY_KERAS'
  clean = {key: value for key, value in os.environ.items() if key != name}
  done = subprocess.run(
    [sys.executable, '-c', _SCRIPT],
    env=clean,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  (line,) = done.stdout.splitlines()
  assert 'tf-keras' in line
