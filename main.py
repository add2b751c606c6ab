"""Trains, evaluates and exports EfficientNets with AdvProp.

  .venv/bin/python main.py --mode=train_and_eval --model_name=efficientnet-b7

`.venv/bin/python main.py --help` lists the flags; the code is in
efficientnet_advprop/app/command_line.py.
"""

from efficientnet_advprop.app import command_line

if __name__ == '__main__':
  command_line.run('main.py')
