import dataclasses
from typing import Optional

import pytest

from efficientnet_advprop.config import fields


@dataclasses.dataclass(frozen=True)
class _Section(fields.Checked):
  name: str = fields.field('a', choices=('a', 'bcd'))
  rate: float = fields.field(0.5, above=0, high=1)
  count: int = fields.field(2, low=1)
  size: Optional[int] = fields.field(None, low=8)
  flip: bool = fields.field(True)


def test_values_get_the_type_of_their_field():
  section = _Section(rate='1e-1', count=3.0, size=8)
  assert (section.rate, section.count, section.size) == (0.1, 3, 8)
  assert isinstance(section.count, int)
  assert _Section().size is None


@pytest.mark.parametrize(
  'values, message',
  [
    (dict(name='bcx'), r"name: got 'bcx'; .*a, bcd \(did you mean bcd\?\)"),
    (dict(rate=0), 'rate: got 0; allowed: a number above 0 and at most 1'),
    (dict(rate=True), 'rate: got True; '),
    (dict(count=0), 'count: got 0; allowed: a whole number of at least 1'),
    (dict(count=1.5), 'count: got 1.5; '),
    (dict(count=float('inf')), 'count: got inf; '),
    (dict(size=7), 'size: got 7; '),
    (dict(flip=1), 'flip: got 1; allowed: true or false'),
  ],
)
def test_a_value_out_of_range_names_its_key_and_what_is_allowed(
  values, message
):
  with pytest.raises(fields.ConfigError, match=f'^{message}'):
    _Section(**values)


def test_an_error_within_a_section_names_the_section():
  error = fields.ConfigError('count', 0, 'more').under('train')
  assert str(error) == 'train.count: got 0; allowed: more'
