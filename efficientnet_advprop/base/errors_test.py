import pytest

from efficientnet_advprop.base import errors


def test_a_config_error_names_key_value_and_what_is_allowed():
  error = errors.ConfigError('epochs', -1, 'a number above 0').under('train')
  assert str(error) == 'train.epochs: got -1; allowed: a number above 0'
  assert (error.key, error.value) == ('train.epochs', -1)


@pytest.mark.parametrize(
  'kind',
  [
    errors.CheckpointError,
    errors.DataError,
    errors.ExportError,
    errors.LockedError,
    errors.TrainingError,
    errors.WorkerLostError,
  ],
)
def test_every_kind_is_a_user_error(kind):
  with pytest.raises(errors.UserError, match=r'^why$'):
    raise kind('why')


def test_first_line_keeps_both_ends():
  assert errors.first_line(ValueError('a\nb')) == 'a'
  assert errors.first_line(ValueError()) == 'ValueError'
  line = errors.first_line(ValueError('x' * 200 + 'y' * 200))
  assert len(line) == 240 and line.startswith('x') and line.endswith('y')
