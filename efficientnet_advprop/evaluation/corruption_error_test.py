import numpy as np
import pytest

from efficientnet_advprop.evaluation import corruption_error


@pytest.fixture(name='errors')
def _errors():
  numbers = np.random.default_rng(0).uniform(0.2, 0.95, [15, 5])
  return {
    name: {severity: float(row[severity - 1]) for severity in range(1, 6)}
    for name, row in zip(corruption_error.ALEXNET_ERRORS, numbers)
  }


def test_mce_equals_an_independent_computation(errors):
  matrix = np.array([list(row.values()) for row in errors.values()])
  alexnet = np.array(list(corruption_error.ALEXNET_ERRORS.values()))
  # As the benchmark's authors do it: percentages, corruption by corruption.
  expected = np.mean(100 * matrix.mean(1) / (100 * alexnet))
  mce = corruption_error.mean_corruption_error(errors)
  assert mce == pytest.approx(expected, abs=1e-9)
  plain = corruption_error.unnormalized_mean_error(errors)
  assert plain == pytest.approx(matrix.mean(), abs=1e-9)


def test_alexnet_scores_one():
  errors = {
    name: dict.fromkeys(range(1, 6), value)
    for name, value in corruption_error.ALEXNET_ERRORS.items()
  }
  assert corruption_error.mean_corruption_error(errors) == pytest.approx(
    1, abs=1e-9
  )


def test_resnet_50_scores_what_is_published():
  # Errors and mCE of the benchmark's own table, in percent of CE.
  published = dict(zip(corruption_error.ALEXNET_ERRORS, (
      80, 82, 83, 75, 89, 78, 80, 78, 75, 66, 57, 71, 85, 77, 77,
  )))  # fmt: skip
  errors = {
    name: dict.fromkeys(
      range(1, 6), ce / 100 * corruption_error.ALEXNET_ERRORS[name]
    )
    for name, ce in published.items()
  }
  # The table rounds each CE to a whole percent.
  mce = corruption_error.mean_corruption_error(errors)
  assert mce == pytest.approx(0.767, abs=0.005)


@pytest.mark.parametrize(
  'change, words',
  [
    (lambda e: e.pop('snow'), 'corruption snow is missing'),
    (lambda e: e['fog'].pop(3), 'severity 3 of fog is missing'),
    (lambda e: e.update(saturate=e['fog']), "'saturate' is no corruption"),
    (lambda e: e['fog'].update({6: 0.5}), 'fog has severities other than'),
    (lambda e: e['fog'].update({1: 56.0}), '56.0 at severity 1 of fog'),
    (lambda e: e['fog'].update({1: float('nan')}), 'nan at severity 1'),
  ],
)
def test_a_part_is_never_a_mean(errors, change, words):
  change(errors)
  with pytest.raises(ValueError, match=words) as error:
    corruption_error.mean_corruption_error(errors)
  assert '\n' not in str(error.value)
