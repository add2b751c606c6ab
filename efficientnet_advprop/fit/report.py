"""What a conversion did, in words: which norms have twins, which are frozen."""

from typing import NamedTuple

from efficientnet_advprop.fit import conversion

_SHOWN = 3  # Paths in a summary, at each end.


class NormReport(NamedTuple):
  """A batch norm of the network and what became of it."""

  path: str
  kind: str  # Name of the layer's class.
  status: str


class Report(NamedTuple):
  """The norms of a network under AdvProp.

  `str(report)` lists every norm; `summary` is a few lines.
  """

  norms: list[NormReport]
  settings: list[str]  # Lines on the method, the attack and the pixel range.

  def summary(self) -> str:
    """Returns the settings, and the paths of the norms by their status."""
    lines = list(self.settings)
    statuses = dict.fromkeys(norm.status for norm in self.norms)
    for status in statuses:
      paths = [norm.path for norm in self.norms if norm.status == status]
      if len(paths) > 2 * _SHOWN:
        paths = [*paths[:_SHOWN], '...', *paths[-_SHOWN:]]
      count = sum(norm.status == status for norm in self.norms)
      noun = 'norm' if count == 1 else 'norms'
      lines.append(f'{count} {noun} {status}: {", ".join(paths)}')
    return '\n'.join(lines)

  def __str__(self) -> str:
    width = max((len(norm.path) for norm in self.norms), default=0)
    lines = [
      f'{norm.path:{width}}  {norm.kind}: {norm.status}' for norm in self.norms
    ]
    return '\n'.join([*self.settings, *lines])


def describe(converted: conversion.Conversion, settings: list[str]) -> Report:
  """Reports on a conversion.

  Args:
    converted: what is known of its passes so far counts.
    settings: lines to put first.
  """
  norms = [
    NormReport(norm.path, type(norm.layer).__name__, _status(converted, norm))
    for norm in converted.norms
  ]
  norms += [
    NormReport(path, 'AuxBatchNormalization', 'with domains of its own')
    for path in converted.own
  ]
  return Report(norms, settings)


def _status(converted: conversion.Conversion, norm: conversion.Norm) -> str:
  if not norm.layer.trainable:
    return 'frozen in all domains (trainable=False)'
  modes = converted.uses(norm)
  if modes is None or any(mode is not False for mode in modes):
    return 'with a twin for each domain'
  if not modes:
    return 'not reached by a call of the network'
  return 'with twins whose statistics stand still (called with training=False)'
