"""A contact sheet of the embedded data set, from the command to the PNG."""

import numpy as np
import pytest

from efficientnet_advprop.base import errors
from tools.drawing import preview


def test_draws_a_block_of_captioned_pictures_per_image():
  image = preview.sheet('', 'train', images=2, size=32, level=8, seed=0)
  sheet = np.array(image)
  step = preview._CELL + preview._MARGIN
  assert sheet.shape[1] == 10 * step + preview._MARGIN
  assert sheet.shape[0] == 2 * (2 * (step + preview._CAPTION) + 12)
  pictures = sheet[preview._MARGIN :, preview._MARGIN :]
  for column in range(10):
    cell = pictures[:100, column * step : column * step + 100]
    assert len(np.unique(cell.reshape(-1, 3), axis=0)) > 30


def test_a_missing_folder_is_named(tmp_path):
  missing = str(tmp_path / 'nothing')
  with pytest.raises(errors.DataError, match=missing):
    preview.sheet(missing, 'train', images=2, size=32, level=8, seed=0)
