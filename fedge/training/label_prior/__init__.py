"""How often each class occurs, found without a label, and answers corrected by it."""

from fedge.training.label_prior.answers import Corrected, CorrectedNetwork
from fedge.training.label_prior.em import believed, corrected, em_prior

__all__ = ["Corrected", "CorrectedNetwork", "believed", "corrected", "em_prior"]
