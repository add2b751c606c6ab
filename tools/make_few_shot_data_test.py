import os

import numpy as np
from PIL import Image
import pytest

from tools import make_few_shot_data
from tools.drawing import scenes


def _pixels(directory):
  return {
    os.path.relpath(os.path.join(folder, name), directory): np.asarray(
      Image.open(os.path.join(folder, name))
    )
    for folder, _, names in os.walk(directory)
    for name in names
  }


def test_images_depend_on_the_seed_alone(tmp_path, monkeypatch):
  monkeypatch.setattr(
    make_few_shot_data, 'IMAGES_PER_CLASS', {'train': 1, 'validation': 2}
  )
  for name, seed in (('one', 0), ('two', 0), ('three', 1)):
    make_few_shot_data.write_dataset(str(tmp_path / name), seed)
  one, two, three = (_pixels(tmp_path / n) for n in ('one', 'two', 'three'))
  assert len(one) == 3 * len(make_few_shot_data.CLASSES)
  assert set(one) == set(two) == set(three)
  for name, pixels in one.items():
    assert pixels.shape == (scenes.SIZE,) * 2 + (3,)
    np.testing.assert_array_equal(pixels, two[name])
    assert (pixels != three[name]).any()
  assert len({pixels.tobytes() for pixels in one.values()}) == len(one)
  with pytest.raises(FileExistsError):
    make_few_shot_data.write_dataset(str(tmp_path / 'one'), 0)


def test_classes_are_shapes():
  assert set(make_few_shot_data.CLASSES) < set(scenes.OUTLINES)
