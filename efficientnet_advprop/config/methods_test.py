import pytest

from efficientnet_advprop.config import methods


@pytest.mark.parametrize('name', methods.METHODS)
def test_passes_and_domains_are_told_apart_by_their_names(name):
  """They name losses of the logs, and norms of checkpoints."""
  method = methods.METHODS[name]
  names = [method.main_pass, *method.further_passes, *method.auxiliary_domains]
  assert len(set(names)) == len(names)
  assert methods.MAIN_DOMAIN not in method.auxiliary_domains
