"""A contact sheet of the embedded data set, from the command to the PNG."""

import numpy as np
import pytest

from efficientnet_advprop.base import errors
from tools import preview_data


def test_draws_a_block_of_captioned_pictures_per_image():
  image = preview_data.run('', 'train', images=2, size=32, level=8, seed=0)
  sheet = np.array(image)
  step = preview_data._CELL + preview_data._MARGIN
  assert sheet.shape[1] == 10 * step + preview_data._MARGIN
  assert sheet.shape[0] == 2 * (2 * (step + preview_data._CAPTION) + 12)
  pictures = sheet[preview_data._MARGIN :, preview_data._MARGIN :]
  for column in range(10):
    cell = pictures[:100, column * step : column * step + 100]
    assert len(np.unique(cell.reshape(-1, 3), axis=0)) > 30


def test_a_missing_folder_is_named(tmp_path):
  missing = str(tmp_path / 'nothing')
  with pytest.raises(errors.DataError, match=missing):
    preview_data.run(missing, 'train', images=2, size=32, level=8, seed=0)
