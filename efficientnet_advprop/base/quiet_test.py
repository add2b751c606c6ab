import os

import pytest

from efficientnet_advprop.base import quiet


def test_native_notes_are_hidden_unless_the_conversion_fails(capfd):
  with quiet.quiet_conversion():
    os.write(2, b'a note')
  assert capfd.readouterr().err == ''
  with pytest.raises(ValueError, match='no'), quiet.quiet_conversion():
    os.write(2, b'a reason')
    raise ValueError('no')
  assert capfd.readouterr().err == 'a reason'
  os.write(2, b'shown again')
  assert capfd.readouterr().err == 'shown again'
