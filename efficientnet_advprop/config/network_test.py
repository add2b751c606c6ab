import pytest

from efficientnet_advprop import config as config_lib


def test_model_defaults_are_the_family_s():
  model = config_lib.model_config('efficientnet-b7', {})
  assert (model.width_coefficient, model.depth_coefficient) == (2.0, 3.1)
  assert (model.image_size, model.dropout_rate) == (600, 0.5)


def test_resnet_defaults_are_the_family_s():
  model = config_lib.model_config('resnet-152', {})
  assert (model.image_size, model.dropout_rate) == (224, 0)
  assert (model.survival_probability, model.batch_norm_momentum) == (1, 0.9)
  with pytest.raises(config_lib.ConfigError, match='drops nothing'):
    config_lib.model_config('resnet-152', {'survival_probability': 0.8})
