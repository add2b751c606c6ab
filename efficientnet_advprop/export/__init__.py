"""From a checkpoint to files that other programs run."""

from efficientnet_advprop.export.exporter import Exported
from efficientnet_advprop.export.exporter import export
from efficientnet_advprop.export.saved_model import export_saved_model

__all__ = ['Exported', 'export', 'export_saved_model']
