"""Early exits: small classifiers along a network's depth, of which the first that is sure enough answers.

A reconstruction of PersEPhonEE (Leontiadis et al., HotMobile 2021, arXiv 2102.01393), known by its abstract: exits are
trained in the factory, and again on a device for its person, while the trunk stands still.
"""

from fedge.training.exits.leaving import Judged, chosen_thresholds, judged
from fedge.training.exits.network import ExitNetwork, with_exits
from fedge.training.exits.task import UNLABELLED, ExitTask

__all__ = ["UNLABELLED", "ExitNetwork", "ExitTask", "Judged", "chosen_thresholds", "judged", "with_exits"]
