r"""Draws the picture of README.md from a run.

  .venv/bin/python tools/draw_method.py --model_dir=runs/efficientnet-b0_advprop

It attacks the run's evaluation images through the auxiliary norms, as training
does, and shows the one in which the network is surest before and after: right
about the clean image, wrong about the adversarial one, both through the main
norms. It needs requirements-results.txt.
"""

from collections.abc import Sequence
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import flags
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))

from efficientnet_advprop import attacks
from efficientnet_advprop import config as config_lib
from efficientnet_advprop.app import program
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import paths
from efficientnet_advprop.data import pipeline
from efficientnet_advprop.data import sources
from efficientnet_advprop.models import factory
from efficientnet_advprop.weights import loading

# Imported after the package, which selects Keras 2.
import tensorflow as tf  # isort: skip

_FLAGS = program.flag_values(__name__)
_MODEL_DIR = flags.DEFINE_string(
  'model_dir', None, 'Folder of the run.', required=True, flag_values=_FLAGS
)
_OUTPUT = flags.DEFINE_string(
  'output', 'docs/images/method.png', 'The PNG.', flag_values=_FLAGS
)
_EPSILON = flags.DEFINE_integer(
  'epsilon', 4, 'Of the attack, in 0-255 levels.', 1, flag_values=_FLAGS
)
_DOMAIN = 'adversarial'


def pick(clean: np.ndarray, adversarial: np.ndarray, labels: np.ndarray) -> int:
  """Returns the image in which an attack changes the surest answer.

  Args:
    clean: probabilities [images, classes] of the clean images.
    adversarial: the same of the adversarial ones.
    labels: the true classes, [images].

  Raises:
    DataError: the attack changes no right answer.
  """
  changed = (clean.argmax(1) == labels) & (adversarial.argmax(1) != labels)
  if not changed.any():
    raise errors.DataError('the attack changes no answer: raise --epsilon')
  return int(np.argmax(changed * clean.max(1) * adversarial.max(1)))


def _draw(model_dir: str, output: str, epsilon: int) -> None:
  # Imported here, so that a missing Matplotlib is one line.
  from tools.drawing import method

  config = config_lib.load_config(os.path.join(model_dir, paths.CONFIG))
  config_lib.check_choice('train.method', config.train.method, ('advprop',))
  model = factory.create_model(
    config.model, config.data.num_classes, config.auxiliary_domains
  )
  loading.restore(model, model_dir)
  source = sources.find(config.data, config.data.eval_split)
  dataset = pipeline.eval_dataset(config, source)
  batch = next(iter(dataset))
  images, labels = batch['image'], batch['label']
  attack = config_lib.AttackConfig(epsilon=epsilon, target='label')
  adversarial = tf.function(attacks.attack)(
    lambda x: model(x, domain=_DOMAIN), images, labels, attack, [0, 0]
  )
  shares = [tf.nn.softmax(model(x)).numpy() for x in (images, adversarial)]
  index = pick(shares[0], shares[1], labels.numpy())
  names = sources.label_names(config.data) or range(len(shares[0][0]))
  before, after = (
    f'{names[share[index].argmax()]}, {share[index].max():.0%}'
    for share in shares
  )
  os.makedirs(os.path.dirname(output) or '.', exist_ok=True)
  pair = images[index].numpy(), adversarial[index].numpy()
  method.draw(output, *pair, (before, after), epsilon)


def main(_: Sequence[str]) -> None:
  """Draws the picture."""
  try:
    _draw(_MODEL_DIR.value or '', _OUTPUT.value or '', _EPSILON.value or 1)
  except ImportError as error:
    raise errors.UserError(str(error)) from None


if __name__ == '__main__':
  program.run('draw_method', main, _FLAGS)
