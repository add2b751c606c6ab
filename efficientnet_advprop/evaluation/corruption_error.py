"""The arithmetic of corrupted test sets: errors, CE and mCE.

Hendrycks and Dietterich, 2019: the error of a corruption over all severities is
divided by AlexNet's on ImageNet-C (CE), which makes hard and easy corruptions
comparable; mCE is the mean of CE over the 15 corruptions. All are fractions.
"""

from collections.abc import Mapping

from efficientnet_advprop.evaluation import corruptions

# Errors[corruption][severity], each a fraction of wrong answers.
Errors = Mapping[str, Mapping[int, float]]

# AlexNet's mean error over the severities of ImageNet-C, as published.
ALEXNET_ERRORS = {
  'gaussian_noise': 0.886428,
  'shot_noise': 0.894468,
  'impulse_noise': 0.922640,
  'defocus_blur': 0.819880,
  'glass_blur': 0.826268,
  'motion_blur': 0.785948,
  'zoom_blur': 0.798360,
  'snow': 0.866816,
  'frost': 0.826572,
  'fog': 0.819324,
  'brightness': 0.564592,
  'contrast': 0.853204,
  'elastic_transform': 0.646056,
  'pixelate': 0.717840,
  'jpeg_compression': 0.606500,
}


def check_errors(errors: Errors) -> None:
  """Raises ValueError unless there is a fraction for each of the 75 cases.

  The message is one line; it names what is missing, unknown or no fraction.
  """
  unknown = sorted(set(errors) - set(corruptions.NAMES))
  if unknown:
    raise ValueError(f'errors: {unknown[0]!r} is no corruption of ImageNet-C')
  for name in corruptions.NAMES:
    if name not in errors:
      raise ValueError(f'errors: the corruption {name} is missing')
    if set(errors[name]) - set(corruptions.SEVERITIES):
      raise ValueError(f'errors: {name} has severities other than 1 to 5')
    for severity in corruptions.SEVERITIES:
      if severity not in errors[name]:
        raise ValueError(f'errors: severity {severity} of {name} is missing')
      value = errors[name][severity]
      if not 0 <= value <= 1:
        raise ValueError(
          f'errors: {value} at severity {severity} of {name} is no fraction'
        )


def mean_errors(errors: Errors) -> dict[str, float]:
  """Each corruption's mean error over its severities.

  Raises:
    ValueError: see `check_errors`.
  """
  check_errors(errors)
  return {
    name: sum(errors[name].values()) / len(errors[name])
    for name in corruptions.NAMES
  }


def corruption_errors(errors: Errors) -> dict[str, float]:
  """CE of each corruption: its mean error over AlexNet's; may be above 1.

  Raises:
    ValueError: see `check_errors`.
  """
  return {
    name: value / ALEXNET_ERRORS[name]
    for name, value in mean_errors(errors).items()
  }


def mean_corruption_error(errors: Errors) -> float:
  """The mCE on ImageNet-C, a fraction (the paper's 52.9% is 0.529).

  Args:
    errors: errors[corruption][severity], fractions, for all 15 corruptions and
      the severities 1 to 5.

  Raises:
    ValueError: one is missing, unknown or no fraction; a partial mean would
      not be mCE.
  """
  return _mean(corruption_errors(errors))


def unnormalized_mean_error(errors: Errors) -> float:
  """The mean error over all cases, where AlexNet is no baseline.

  Raises:
    ValueError: see `check_errors`.
  """
  return _mean(mean_errors(errors))


def _mean(values: Mapping[str, float]) -> float:
  return sum(values.values()) / len(values)
