"""SavedModels for TF Serving: main norms only, two signatures, warm-up."""

from collections.abc import Sequence
import os
from typing import Optional

import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.base import quiet
from efficientnet_advprop.data import preprocessing
from efficientnet_advprop.export import versions
from efficientnet_advprop.export import warmup
from efficientnet_advprop.weights import loading

# The signatures' names, and of what they take and give.
FLOAT_SIGNATURE = 'serving_default'
BYTES_SIGNATURE = 'encoded_images'
IMAGES = 'images'
# Vertex AI takes base64 only for inputs whose names end in `_bytes`.
IMAGE_BYTES = 'image_bytes'

LABELS_FILE = 'labels.txt'
_TOP_K = 5
_MAGIC_NUMBERS = (b'\xff\xd8\xff', b'\x89PNG', b'GIF8', b'BM')


class ServingModule(tf.Module):
  """Holds what is exported: the variables of a network and its signatures.

  The network itself is not an attribute: Keras would trace and write every
  layer a second time.
  """

  def __init__(
    self,
    model: tf.keras.Model,
    data_config: config_lib.DataConfig,
    class_names: Sequence[str],
  ):
    """Creates the signatures.

    Args:
      model: a network without auxiliary domains, in float32.
      data_config: how images are cropped.
      class_names: one for each logit.
    """
    super().__init__(name='serving')
    self.weights = list(model.variables)
    class_names = list(class_names)
    size = model.model_config.image_size
    num_top = min(_TOP_K, len(class_names))

    def classify(images: tf.Tensor) -> dict[str, tf.Tensor]:
      logits = model(images, training=False)
      probabilities = tf.nn.softmax(logits)
      top = tf.math.top_k(probabilities, num_top)
      return {
        'logits': logits,
        'probabilities': probabilities,
        'top_classes': tf.gather(tf.constant(class_names), top.indices),
        'top_indices': top.indices,
        'top_probabilities': top.values,
      }

    def classify_encoded(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
      def decode(encoded: tf.Tensor) -> tf.Tensor:
        return preprocessing.evaluation_image(
          encoded, size, data_config.eval_crop_padding
        )

      with tf.control_dependencies([check_encoded(image_bytes)]):
        image_bytes = tf.identity(image_bytes)
      images = tf.map_fn(
        decode,
        image_bytes,
        fn_output_signature=tf.TensorSpec([size, size, 3], tf.float32),
      )
      return classify(preprocessing.normalize(images))

    self.classify = tf.function(
      classify,
      input_signature=[
        tf.TensorSpec([None, size, size, 3], tf.float32, IMAGES)
      ],
    )
    self.classify_encoded = tf.function(
      classify_encoded,
      input_signature=[tf.TensorSpec([None], tf.string, IMAGE_BYTES)],
    )


def check_encoded(image_bytes: tf.Tensor) -> tf.Operation:
  """Fails if one of the strings [batch] does not begin like an image file."""
  known = tf.zeros_like(image_bytes, tf.bool)
  for magic in _MAGIC_NUMBERS:
    known |= tf.strings.substr(image_bytes, 0, len(magic)) == magic
  unknown = tf.boolean_mask(tf.range(tf.size(image_bytes)), ~known)
  places = tf.strings.reduce_join(tf.strings.as_string(unknown), separator=', ')
  problem = tf.strings.join(
    ['not a JPEG, PNG, GIF or BMP file: image_bytes at index ', places]
  )
  return tf.debugging.Assert(tf.reduce_all(known), [problem])


def restored_model(
  config: config_lib.Config,
  checkpoint: str,
  auxiliary_domains: Sequence[str] = (),
) -> tuple[tf.keras.Model, int]:
  """Creates the network in float32 with the weights of a checkpoint.

  Args:
    config: of the run.
    checkpoint: as `loading.restore` takes it.
    auxiliary_domains: whose norms the network has next to the main ones.

  Returns:
    The network, and the step after which the checkpoint was written.

  Raises:
    ExportError: there is no checkpoint, or not one of this network.
  """
  policy = tf.keras.mixed_precision.global_policy()
  tf.keras.mixed_precision.set_global_policy('float32')
  try:
    return loading.restored(
      config, checkpoint, config.eval.weights, auxiliary_domains
    )
  except errors.CheckpointError as error:
    raise errors.ExportError(f'nothing to export: {error}') from error
  finally:
    tf.keras.mixed_precision.set_global_policy(policy)


def checked_class_names(
  class_names: Optional[Sequence[str]], num_classes: int
) -> list[str]:
  """Returns one name for each class: those given, or else the numbers.

  Raises:
    ExportError: there are more or fewer, or one would not fit on a line.
  """
  if class_names is None:
    return [str(index) for index in range(num_classes)]
  if len(class_names) != num_classes:
    raise errors.ExportError(
      f'class_names: got {len(class_names)} names for {num_classes} classes'
    )
  for name in class_names:
    if len(name.splitlines()) != 1:
      raise errors.ExportError(f'class_names: {name!r} is not one line of text')
  return list(class_names)


def write_saved_model(
  model: tf.keras.Model,
  config: config_lib.Config,
  class_names: Sequence[str],
  directory: str,
) -> None:
  """Writes the SavedModel, its labels and its warm-up requests.

  Args:
    model: see `restored_model`, without auxiliary domains.
    config: of the run.
    class_names: one for each class.
    directory: is there, and empty.

  Raises:
    ExportError: it cannot be written to.
  """
  module = ServingModule(model, config.data, class_names)
  signatures = {
    FLOAT_SIGNATURE: module.classify,
    BYTES_SIGNATURE: module.classify_encoded,
  }
  size = config.model.image_size
  picture = tf.io.encode_jpeg(tf.fill([size, size, 3], tf.cast(128, tf.uint8)))
  # One value fills the whole tensor of a request.
  images = tf.make_tensor_proto(0.0, tf.float32, [1, size, size, 3])
  encoded = tf.make_tensor_proto([picture.numpy()], tf.string)
  requests = [
    (FLOAT_SIGNATURE, {IMAGES: images}),
    (BYTES_SIGNATURE, {IMAGE_BYTES: encoded}),
  ]
  with versions.export_errors(os.path.dirname(directory)):
    with quiet.quiet_logs():
      tf.saved_model.save(module, directory, signatures)
    warmup.write(directory, config.model.name, requests)
    write_labels(directory, class_names)


def write_labels(directory: str, class_names: Sequence[str]) -> None:
  """Writes the names of the classes, one a line, in the order of the logits."""
  path = os.path.join(directory, LABELS_FILE)
  with tf.io.gfile.GFile(path, 'w') as file:
    file.write(''.join(f'{name}\n' for name in class_names))
