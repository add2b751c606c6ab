"""Every training method by its name: its passes and their domains.

A new method is a row of `METHODS` and a function of the same name in methods/.
"""

import dataclasses

MAIN_DOMAIN = 'main'


@dataclasses.dataclass(frozen=True)
class Method:
  """What a training method passes through the network.

  Attributes:
    main_pass: name of the pass through the main norms, which becomes
      `<name>_loss` in the logs.
    auxiliary_domains: domains with norms of their own, each with a pass.
    further_passes: names of passes through the norms of a domain that another
      pass is named after.
    two_views: whether it needs the plain and the augmented crop of an image.
  """

  main_pass: str
  auxiliary_domains: tuple[str, ...] = ()
  two_views: bool = False
  further_passes: tuple[str, ...] = ()


METHODS = {
  'vanilla': Method('clean'),
  'adversarial': Method('adversarial'),
  'mixture': Method('mixture'),
  'pretrain_finetune': Method('main'),
  'advprop': Method('clean', ('adversarial',)),
  'fast_advprop': Method('clean', ('adversarial',), further_passes=('noise',)),
  'fine_grained': Method('clean', ('augmented', 'adversarial'), two_views=True),
}
