from efficientnet_advprop import config as config_lib
from efficientnet_advprop.fit import setup


def test_every_method_of_the_trainer_is_taken_or_refused_with_a_reason():
  taken, refused = set(setup.METHODS), set(setup._OTHERS)
  assert taken | refused == set(config_lib.METHODS) and not taken & refused
