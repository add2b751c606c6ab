from pathlib import Path

from efficientnet_advprop import config as config_lib

_ROOT = Path(__file__).parents[2]


def test_lite_recipes_are_the_published_ones():
  sizes = [224, 240, 260, 280, 300]
  rates = [0.2, 0.2, 0.3, 0.3, 0.3]
  for number, (size, rate) in enumerate(zip(sizes, rates)):
    name = f'efficientnet-lite{number}'
    folder = _ROOT / 'hparams' / 'imagenet' / 'lite'
    config = config_lib.load_config(str(folder / f'{name}.yaml'))
    model = config.model
    assert (model.name, model.image_size, model.dropout_rate) == (
      name,
      size,
      rate,
    )
    assert (model.survival_probability, model.batch_norm_momentum) == (
      0.8,
      0.99,
    )
    assert model.normalization == 'lite' and config.train.method == 'vanilla'
    assert config_lib.model_config(name, {'normalization': 'advprop'})
  other = config_lib.model_config('efficientnet-b0', {})
  assert other.normalization == 'advprop'
