"""From a checkpoint to files that other programs run."""

from efficientnet_advprop.export.exporter import Exported
from efficientnet_advprop.export.exporter import export

__all__ = ['Exported', 'export']
