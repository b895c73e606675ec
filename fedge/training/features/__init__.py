"""The classifier alone, trained on the features of a trunk that stays as it is: cached, generated, or replayed."""

from fedge.training.features.gaussians import Gaussians
from fedge.training.features.shipped import Shipped, drawn_epoch
from fedge.training.features.stored import Stored
from fedge.training.features.trunk import Trunk

__all__ = ["Gaussians", "Shipped", "Stored", "Trunk", "drawn_epoch"]
