"""ADaPT (arXiv 2006.08554): structured pruning with a device's own data in view."""

from fedge.training.pruning.criteria import CRITERIA, Criterion, Evidence
from fedge.training.pruning.one_shot import LevelOutOfReachError, prune
from fedge.training.pruning.topology import Topology

__all__ = ["CRITERIA", "Criterion", "Evidence", "LevelOutOfReachError", "Topology", "prune"]
