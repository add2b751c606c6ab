import pytest

from efficientnet_advprop import config as config_lib


@pytest.mark.parametrize(
  'epsilon, steps', [(0, 1), (1, 1), (2, 3), (3, 4), (4, 5), (6, 7)]
)
def test_attack_steps_follow_the_paper(epsilon, steps):
  attack = config_lib.AttackConfig(epsilon=epsilon)
  assert (attack.num_steps, attack.step_size) == (steps, 1)


def test_fgsm_is_one_step_of_epsilon():
  attack = config_lib.AttackConfig(name='fgsm', epsilon=8)
  assert (attack.num_steps, attack.step_size) == (1, 8)
  assert not attack.random_start
  with pytest.raises(config_lib.ConfigError, match='ifgsm'):
    config_lib.AttackConfig(name='fgsm', num_steps=3)


def test_a_removed_key_passes_with_the_value_that_remains():
  """Runs of older versions resume: their config.yaml has the key."""
  config_lib.from_dict({'attack': {'clean_start_probability': 0}})
  with pytest.raises(config_lib.ConfigError, match='clean_start_probability'):
    config_lib.from_dict({'attack': {'clean_start_probability': 0.2}})
