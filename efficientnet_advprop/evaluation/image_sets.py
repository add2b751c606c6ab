"""Where the images of a named test are, and what they have to be.

Corrupted sets are in `<corruption>/<severity>/<class>/<image>`, or have
TFRecords `<corruption>/<severity>-?????-of-?????`, or come from TensorFlow
Datasets. Everything is checked before the first image is read.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import os
from typing import Callable, NamedTuple, Optional

from absl import logging
from google.protobuf import message
import tensorflow as tf

from efficientnet_advprop import config as config_lib
from efficientnet_advprop.base import errors
from efficientnet_advprop.data import class_folders
from efficientnet_advprop.data import records
from efficientnet_advprop.data import sources
from efficientnet_advprop.data import tfds_splits
from efficientnet_advprop.evaluation import corrupted_sets
from efficientnet_advprop.evaluation import corruptions
from efficientnet_advprop.evaluation import imagenet_classes

# As published; of ImageNet-C for each corruption and severity.
NUM_IMAGES = {
  'imagenet_c': 50_000,
  'imagenet_a': 7_500,
  'imagenet_r': 30_000,
  'imagenet_v2': 10_000,
  'imagenet_sketch': 50_889,
  'stylized_imagenet': 50_000,
}
# In pixels; their images are used as they are stored (paper, Table 1).
STORED_SIDES = {'imagenet_c': 224, 'stylized_imagenet': 224}
CORRUPTED_KINDS = ('corruptions', 'imagenet_c')

# Published with the 15 corruptions, for validation; no part of mCE.
_EXTRA = ('gaussian_blur', 'saturate', 'spatter', 'speckle_noise')
# The split that TensorFlow Datasets keeps a set in.
_TFDS_SPLITS = {'imagenet_c': 'validation'}
_TFDS_SPLIT = 'test'
# Other names of corruptions there.
_TFDS_NAMES = {'cifar10_corrupted': {'glass_blur': 'frosted_glass_blur'}}

Case = tuple[str, int]  # A corruption and a severity.


class Images(NamedTuple):
  """A set of test images.

  Attributes:
    source: of the images.
    classes: the labels among which the answer is sought; None: all.
  """

  source: records.Source
  classes: Optional[tuple[int, ...]] = None


def is_corrupted(test: config_lib.NamedTestConfig) -> bool:
  """Whether a test consists of 75 cases: corruptions and severities."""
  return test.kind in CORRUPTED_KINDS


def find(config: config_lib.Config, test: config_lib.NamedTestConfig) -> Images:
  """Finds the images of a test that is not `is_corrupted`.

  Raises:
    DataError: they are missing, or are not those of the set; one line.
  """
  data, split = config.data, test.split
  if test.dir is not None:
    data = dataclasses.replace(data, dir=test.dir)
  if test.kind == 'split':
    split = split or data.eval_split
    if test.dir is None and test.num_images is None:
      return Images(sources.find(data, split))
    return Images(sources.find_set(data, split, test.num_images))
  expected = test.num_images or NUM_IMAGES[test.kind]
  source = _find_variant(data, test.kind, split, expected)
  classes = imagenet_classes.classes(test.kind)
  if len(classes) == data.num_classes:
    return Images(source)
  return Images(source, classes)


def check_corrupted(
  config: config_lib.Config, test: config_lib.NamedTestConfig
) -> None:
  """Checks that a corrupted set has all its folders, or can be made.

  Only the first case is listed.

  Raises:
    ConfigError: the set cannot be made of such small images.
    DataError: a corruption, a severity, a class or a package is missing.
  """
  if test.dir is None:
    corrupted_sets.check(config)
  elif not tfds_splits.is_tfds(test.dir):
    _check_folders(test.dir)
    first = corruptions.NAMES[0], corruptions.SEVERITIES[0]
    expected = test.num_images or NUM_IMAGES.get(test.kind)
    check_first(find_case(config, test, test.dir, *first, expected), test)


def check_first(images: Images, test: config_lib.NamedTestConfig) -> None:
  """Checks that the first record has the label, and the cue, of a test.

  Raises:
    DataError: one is missing or not in its range.
  """
  source = images.source
  if test.cue is not None:
    source = sources.with_cue(source, test.cue)
  if source.labels is not None:
    return
  stored = iter(tf.data.TFRecordDataset(source.files[0]))
  try:
    example = tf.train.Example.FromString(next(stored).numpy())
  except (StopIteration, tf.errors.OpError, message.DecodeError):
    return  # Whether damage is allowed is decided when records are read.
  last = source.first_label + source.num_classes - 1
  for key in filter(None, (source.label_key, source.cue_key)):
    values = example.features.feature[key].int64_list.value
    if len(values) != 1 or not source.first_label <= values[0] <= last:
      raise errors.DataError(
        f'{source.files[0]}: record 0: {key} is missing or not in'
        f' {source.first_label}..{last}'
      )


def find_corrupted(
  config: config_lib.Config, test: config_lib.NamedTestConfig, directory: str
) -> dict[Case, Callable[[], Images]]:
  """Finds all cases of a test that `is_corrupted`.

  Args:
    config: of the run.
    test: of one of `CORRUPTED_KINDS`.
    directory: of the set.

  Returns:
    For each corruption and severity, in their order, a function that finds its
    images; it lists them again, as all at once could be millions of names.

  Raises:
    DataError: a corruption, severity or class is missing or unknown, or the
      cases hold different numbers of images; one line.
  """
  is_tfds = tfds_splits.is_tfds(directory)
  if not is_tfds:
    _check_folders(directory)
  expected = test.num_images or NUM_IMAGES.get(test.kind)
  cases: dict[Case, Callable[[], Images]] = {}
  for name in corruptions.NAMES:
    for severity in corruptions.SEVERITIES:
      finder = functools.partial(
        find_case, config, test, directory, name, severity
      )
      expected = finder(expected).source.size
      cases[name, severity] = functools.partial(finder, expected)
  if not is_tfds and test.kind == 'corruptions':
    _check_same_classes([os.path.join(directory, *map(str, c)) for c in cases])
  return cases


def _find_variant(
  data: config_lib.DataConfig,
  kind: str,
  split: Optional[str],
  expected: Optional[int],
) -> records.Source:
  """Finds one folder of class folders, or TFRecords, of an ImageNet variant."""
  if tfds_splits.is_tfds(data.dir):
    split = split or _TFDS_SPLITS.get(kind, _TFDS_SPLIT)
    return _as_stored(sources.find_set(data, split, expected), kind)
  if not tf.io.gfile.isdir(data.dir):
    raise errors.DataError(f'{data.dir}: no such folder')
  if split is None:
    path = os.path.abspath(data.dir) if '://' not in data.dir else data.dir
    path, split = os.path.split(path.rstrip('/'))
    data = dataclasses.replace(data, dir=path)
  folder = os.path.join(data.dir, split)
  if not tf.io.gfile.isdir(folder):
    return _as_stored(sources.find_set(data, split, expected), kind)
  names = class_folders.names_in(folder)
  labels = imagenet_classes.labels_of_folders(kind, folder, names)
  source = sources.find_set(
    dataclasses.replace(data, num_classes=len(names)), split, expected
  )
  # There, the folders are numbered from 0.
  return _as_stored(
    dataclasses.replace(
      source,
      num_classes=data.num_classes,
      labels=tuple(labels[number] for number in source.labels or ()),
    ),
    kind,
  )


def _as_stored(source: records.Source, kind: str) -> records.Source:
  return dataclasses.replace(source, side=STORED_SIDES.get(kind))


def find_case(
  config: config_lib.Config,
  test: config_lib.NamedTestConfig,
  directory: str,
  name: str,
  severity: int,
  expected: Optional[int],
) -> Images:
  """Finds the images of one corruption in one severity."""
  data = corrupted_sets.data_of(config.data, directory, name)
  split = str(severity)
  if tfds_splits.is_tfds(directory):
    builder, _ = tfds_splits.parse(directory)
    name = _TFDS_NAMES.get(builder, {}).get(name, name)
    data = dataclasses.replace(data, dir=f'{directory}/{name}_{severity}')
    split = test.split or _TFDS_SPLITS.get(test.kind, _TFDS_SPLIT)
  if test.kind == 'imagenet_c':
    source = _find_variant(data, test.kind, split, expected)
  else:
    source = sources.find_set(data, split, expected)
    source = dataclasses.replace(source, side=config.model.image_size)
  return Images(source)


def _check_folders(directory: str) -> None:
  """Raises DataError unless there are all corruptions in all severities."""
  if not tf.io.gfile.isdir(directory):
    raise errors.DataError(f'{directory}: no such folder')
  names = class_folders.names_in(directory)
  for name in names:
    if name in _EXTRA:
      logging.info('%s/%s: no part of the mean, left out', directory, name)
    elif name not in corruptions.NAMES:
      known = config_lib.nearest(name, corruptions.NAMES)
      raise errors.DataError(
        f'{directory}: the folder {name!r} is no corruption; there are {known}'
      )
  for name in corruptions.NAMES:
    folder = os.path.join(directory, name)
    if name not in names:
      present = len(set(names) & set(corruptions.NAMES))
      raise errors.DataError(
        f'{directory}: the corruption {name} is missing ({present} of'
        f' {len(corruptions.NAMES)} are there)'
      )
    _check_severities(folder)


def _check_severities(folder: str) -> None:
  entries = [n.rstrip('/') for n in tf.io.gfile.listdir(folder)]
  known = [str(severity) for severity in corruptions.SEVERITIES]
  for severity in class_folders.names_in(folder):
    if severity not in known:
      raise errors.DataError(
        f'{folder}: the folder {severity!r} is no severity of 1 to 5'
      )
  for severity in known:
    if severity not in {entry.split('-')[0] for entry in entries}:
      raise errors.DataError(f'{folder}: severity {severity} is missing')


def _check_same_classes(folders: Sequence[str]) -> None:
  """Raises DataError where class folders differ: labels go by their order."""
  folders = [folder for folder in folders if tf.io.gfile.isdir(folder)]
  names = {folder: set(class_folders.names_in(folder)) for folder in folders}
  for folder in folders:
    differing = names[folder] ^ names[folders[0]]
    if differing:
      raise errors.DataError(
        f'{folder}: its class folders are not those of {folders[0]}:'
        f' {min(differing)!r} is in one only'
      )


def settings(
  config: config_lib.Config, test: config_lib.NamedTestConfig
) -> Mapping[str, object]:
  """Returns what a result depends on besides the weights, as JSON values."""
  size = config.model.image_size
  strengths: Optional[str] = None
  if test.kind == 'corruptions':
    strengths = corruptions.strengths_for(size)
    if test.dir is not None:
      strengths = corrupted_sets.strengths_of(test.dir)
  return {
    'test': config_lib.to_dict(test),
    'data_dir': test.dir or sources.data_dir(config.data),
    'split': test.split or config.data.eval_split,
    'image_size': size,
    'eval_crop_padding': config.data.eval_crop_padding,
    **({'strengths': strengths} if strengths else {}),
  }
