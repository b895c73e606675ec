"""EMP (arXiv 2007.03213, section IV): backward passes through the error maps worth it."""

from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.error_map.scores import SCORES, Score

__all__ = ["SCORES", "ErrorMapPruner", "Score"]
